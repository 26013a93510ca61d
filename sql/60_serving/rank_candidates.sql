drop function if exists public.rank_candidates(uuid[]);
-- Read twice, as every list: scored as the owner, then the videos as the caller.
create or replace function public.rank_candidates(video_ids uuid[], because boolean default false)
returns table (video_id uuid, score real, rank int, because_video_id uuid, because_title text)
language plpgsql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
-- Off, a policy would be an error.
set row_security = on
as $func$
#variable_conflict use_column
begin
    return query
    with list as materialized (
        select o.video_id, o.score, row_number() over (order by o.place)::int as rank
        from two_tower.own_scores(video_ids) o
        join public.videos v on v.id = o.video_id
    )
    select l.video_id, l.score, l.rank, b.id, b.title::text
    from list l
    left join two_tower.own_reasons(array(select t.video_id from list t where t.score is not null and because)) r on r.video_id = l.video_id
    left join public.videos b on b.id = r.because_video_id
    order by l.rank;
end
$func$;

comment on function public.rank_candidates(uuid[], boolean) is
'The given videos, of those that the caller may see, in the order of the caller''s taste, rank 1 first. score is that of '
'recommend_videos(); null for a video or a caller of whom nothing is known: these come last, by popularity, then as given. '
'because adds the '
'liked video that adds most to each score. At most 2000';
