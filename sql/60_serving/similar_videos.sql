drop function if exists public.similar_videos(uuid, int);

-- SECURITY DEFINER: it reads vectors, which anon may not; it gives away the order of the catalogue and nothing of any user. In SQL,
-- because the contract calls both an argument and a column video_id, which plpgsql refuses.
create or replace function public.similar_videos(video_id uuid, "limit" int default 20, diversity real default 0)
returns table (
    video_id uuid, score real, rank int, title text, thumbnail_url text, product_url text, reason text, model_version text
)
language sql stable parallel unsafe security definer set search_path = pg_catalog, pg_temp
as $func$
    select r.video_id, r.score, r.rank, v.title::text, v.thumbnail_url::text, v.product_url::text, r.reason, two_tower.active_version()
    from two_tower.rank_similar($1, $2, $3) r
    join public.videos v on v.id = r.video_id
    order by r.rank
$func$;

comment on function public.similar_videos(uuid, int, real) is
'Published videos nearest to a video, rank 1 first. diversity above 0 trades score for variety';
