// How the page reaches the database. On Supabase, the project's URL and its anon key are all it takes, with anonymous
// sign-ins allowed; an application that has its own sign-in puts it here.
const URL = 'https://PROJECT.supabase.co'
const ANON_KEY = 'the key'

const client = supabase.createClient(URL, ANON_KEY)

export const visitor = () => client

export async function signedIn() {
  const { error } = await client.auth.signInAnonymously()
  if (error) throw error
  return client
}
