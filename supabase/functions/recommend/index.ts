// POST {"limit"?, filters…, "user_id"?: uuid}: recommendations for the caller, or, with the service's key, for user_id; with
// {"liked": […], "noped"?: […]}, for a visitor. Other fields of the body are arguments of recommend_videos() or recommend_from().
// Returns {"success", "videos": […]}.
import { handler, onBehalf } from '../_shared/rpc.ts'

Deno.serve(handler(({ user_id, ...args }, authorization) => ({
  name: 'liked' in args ? 'recommend_from' : 'recommend_videos',
  args: 'liked' in args ? args : { ...args, ...onBehalf(user_id, authorization) },
  answer: (data) => ({ success: true, videos: data }),
})))
