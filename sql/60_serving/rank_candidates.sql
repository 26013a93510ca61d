-- Read twice, as every list: scored as the owner, then the videos as the caller.
create or replace function public.rank_candidates(video_ids uuid[]) returns table (video_id uuid, score real, rank int)
language plpgsql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
-- Off, a policy would be an error.
set row_security = on
as $func$
#variable_conflict use_column
begin
    return query
    select o.video_id, o.score, row_number() over (order by o.place)::int
    from two_tower.own_scores(video_ids) o
    join public.videos v on v.id = o.video_id
    order by o.place;
end
$func$;

comment on function public.rank_candidates(uuid[]) is
'The given videos, of those that the caller may see, in the order of the caller''s taste, rank 1 first. score is that of '
'recommend_videos(); null for a video or a caller of whom nothing is known: such come last, by popularity, then as given. At most 2000';
