// Shared by both functions: the caller's own token is passed on to PostgREST, so the database decides what the caller may do, and no
// function has a key with more rights.
import { createClient } from '@supabase/supabase-js'

const CORS = {
  'Access-Control-Allow-Origin': '*',
  'Access-Control-Allow-Methods': 'POST, OPTIONS',
  'Access-Control-Allow-Headers': 'authorization, apikey, content-type, x-client-info',
}

// PostgREST answers 500 to some errors that the caller can mend.
const STATUS: Record<string, number> = { P0002: 404, '28000': 401 }

export type Arguments = Record<string, unknown>
type Call = { name: string; args: Arguments; answer: (data: unknown) => unknown }

function json(status: number, body: unknown): Response {
  return Response.json(body, { status, headers: CORS })
}

function problem(status: number, code: string, message: string, hint: string | null = null): Response {
  return json(status, { success: false, code, message, hint })
}

// The user id in a token. PostgREST verifies the token; here it only shows whether users ask for themselves. A key that is no JWT has none.
function subject(authorization: string): string | null {
  try {
    const payload = authorization.split('.')[1].replaceAll('-', '+').replaceAll('_', '/')
    return JSON.parse(atob(payload)).sub ?? null
  } catch {
    return null
  }
}

/** On behalf of whom the service asks; nothing where a user names itself, as clients of older pipelines do. */
export function onBehalf(userId: unknown, authorization: string): Arguments {
  return userId == null || userId === subject(authorization) ? {} : { p_user_id: userId }
}

/** A handler that answers a POST with JSON by one routine of the database, called as the caller. */
export function handler(choose: (body: Arguments, authorization: string) => Call): (request: Request) => Promise<Response> {
  return async (request) => {
    if (request.method === 'OPTIONS') return new Response(null, { status: 204, headers: CORS })
    if (request.method !== 'POST') return problem(405, 'method', 'only POST is answered')
    const authorization = request.headers.get('Authorization')
    if (!authorization) return problem(401, '28000', 'the request has no Authorization header')
    let body: unknown
    try {
      const text = await request.text()
      body = text.trim() === '' ? {} : JSON.parse(text)
    } catch {
      return problem(400, 'json', 'the body is no JSON')
    }
    if (typeof body !== 'object' || body === null || Array.isArray(body)) return problem(400, 'json', 'the body must be a JSON object')

    const supabase = createClient(Deno.env.get('SUPABASE_URL')!, Deno.env.get('SUPABASE_ANON_KEY')!, {
      global: { headers: { Authorization: authorization } },
      auth: { persistSession: false, autoRefreshToken: false },
    })
    const { name, args, answer } = choose(body as Arguments, authorization)
    const { data, error, status } = await supabase.rpc(name, args)
    if (error) return problem(STATUS[error.code] ?? (status || 502), error.code, error.message, error.hint)
    return json(200, answer(data))
  }
}
