// POST {"force"?: boolean, "user_id"?: uuid}: refreshes the vector of the caller, or, with the service's key, that of user_id.
// Returns {"success", "user_id", "message", "model_version"}.
import { handler, onBehalf } from '../_shared/rpc.ts'

Deno.serve(handler(({ user_id, ...args }, authorization) => ({
  name: 'embed_user',
  args: { ...args, ...onBehalf(user_id, authorization) },
  answer: (data) => data,
})))
