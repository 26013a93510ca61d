-- In SQL, because the contract calls both an argument and a column video_id, which plpgsql refuses.
create or replace function public.similar_videos(video_id uuid, "limit" int default 20, diversity real default 0)
returns table (
    video_id uuid, score real, rank int, title text, thumbnail_url text, product_url text, reason text, model_version text,
    list_id uuid, propensity real
)
language sql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select l.* from two_tower.list_for_caller(row('similar', $1, null, null, null, null, null, $3), $2) l order by l.rank
$func$;

comment on function public.similar_videos(uuid, int, real) is
'Videos nearest to a video, of those that the caller may see, rank 1 first. diversity above 0 trades score for variety';
