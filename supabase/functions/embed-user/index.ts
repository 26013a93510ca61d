// POST {"force"?: boolean, "user_id"?: uuid}: makes the vector of the caller fresh, or, with the service's key, that of user_id.
// Answers {"success", "user_id", "message", "model_version"}.
import { handler, onBehalf } from '../_shared/rpc.ts'

Deno.serve(handler(({ user_id, ...args }, authorization) => ({
  name: 'embed_user',
  args: { ...args, ...onBehalf(user_id, authorization) },
  answer: (data) => data,
})))
