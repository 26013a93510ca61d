create or replace function two_tower.stale_users(
    p_recent interval default null, p_min_likes int default 1, p_include_existing boolean default false, p_limit int default null
)
returns setof uuid
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    with active as (
        select d.user_id
        from public.user_video_decisions d
        where p_recent is null or two_tower.time_of(d.created_at) >= now() - p_recent
        group by d.user_id
    )
    (
        select a.user_id
        from active a
        where not exists (select from two_tower.user_choices c where c.user_id = a.user_id and not c.personalised)
            and (
                select count(*) from public.user_video_decisions l where l.user_id = a.user_id and two_tower.decision_label(l.decision_type) = 1
            ) >= greatest(p_min_likes, 1)
            and (
                p_include_existing
                or exists (
                    select from unnest(two_tower.live_versions()) as v (version)
                    where not exists (select from two_tower.user_embeddings e where e.model_version = v.version and e.user_id = a.user_id)
                )
            )
        order by a.user_id
        limit p_limit
    )
    union
    -- One like is the least that is asked for, and a profile does as well.
    select u.id
    from unnest(two_tower.live_versions()) as v (version)
    cross join lateral two_tower.users_by_profile(v.version, p_lacking => not p_include_existing) as u (id)
    where p_recent is null and p_min_likes <= 1
    order by user_id
    limit p_limit
$func$;

comment on function two_tower.stale_users(interval, int, boolean, int) is
'Users with at least p_min_likes likes, and a decision in the window if one is given, who lack a vector of a live '
'version and have not opted out; '
'with p_include_existing also those who have all; and, if one like is enough and no window is given, users with a '
'profile key that a version knows';
