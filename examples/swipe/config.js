// How the page connects to the database. On Supabase it needs only the project's URL and its anon key, with anonymous
// sign-ins allowed; an application with a sign-in of its own puts it here.
const URL = 'https://PROJECT.supabase.co'
const ANON_KEY = 'the key'

const client = supabase.createClient(URL, ANON_KEY)

export const visitor = () => client

export async function signedIn() {
  const { error } = await client.auth.signInAnonymously()
  if (error) throw error
  return client
}
