// POST {"limit"?, filters…, "user_id"?: uuid}: what next for the caller, or, with the service's key, for user_id; with {"liked": […],
// "noped"?: […]}, for a visitor. All else in the body are arguments of recommend_videos() or recommend_from().
// Answers {"success", "videos": […]}.
import { handler, onBehalf } from '../_shared/rpc.ts'

Deno.serve(handler(({ user_id, ...args }, authorization) => ({
  name: 'liked' in args ? 'recommend_from' : 'recommend_videos',
  args: 'liked' in args ? args : { ...args, ...onBehalf(user_id, authorization) },
  answer: (data) => ({ success: true, videos: data }),
})))
