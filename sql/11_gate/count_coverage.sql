-- Pending changes are not missing, since the next refresh writes them for every version. Nor are changes set aside that the active
-- version lacks too. The decisions are read once for all versions.
--
-- SECURITY DEFINER: the page's role asks, and reads the decisions only through these counts.
create or replace function two_tower.count_coverage(p_versions text[]) returns table (
    model_version text, liking_users bigint, missing_videos bigint, missing_users bigint
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    -- What the log says for everybody.
    c_everybody constant uuid := '00000000-0000-0000-0000-000000000000';
    v_active text := two_tower.active_version();
begin
    return query
    with liking as materialized (
        select u as user_id from two_tower.liking_users() as u
    )
    select m.version, (select count(*) from liking), v.missing, u.missing
    from unnest(p_versions) as m (version)
    cross join lateral (
        select count(*) as missing
        -- Without the column id, too, so that two_tower.problems can say so: log_user_changes.sql says how.
        from (select null::uuid as id) as absent
        cross join lateral (select id as video_id from public.videos) as v
        where not exists (select from two_tower.video_embeddings e where e.model_version = m.version and e.video_id = v.video_id)
            and not exists (select from two_tower.video_changes c where c.video_id in (v.video_id, c_everybody))
            and not (
                v_active is not null
                and exists (select from two_tower.change_failures f where f.kind = 'video' and f.id = v.video_id)
                and not exists (select from two_tower.video_embeddings e where e.model_version = v_active and e.video_id = v.video_id)
            )
    ) as v
    cross join lateral (
        select count(*) as missing
        from (
            select k.user_id from liking k
            union all
            select p from two_tower.users_by_profile(m.version, p_lacking => true) as p
        ) as l
        where not exists (select from two_tower.user_embeddings e where e.model_version = m.version and e.user_id = l.user_id)
            and not exists (select from two_tower.pending_users c where c.user_id in (l.user_id, c_everybody))
            and not (
                v_active is not null
                and exists (select from two_tower.change_failures c where c.kind = 'user' and c.id = l.user_id)
                and not exists (select from two_tower.user_embeddings e where e.model_version = v_active and e.user_id = l.user_id)
            )
    ) as u;
end
$func$;

comment on function two_tower.count_coverage(text[]) is
'Of each version, how many users have a like and so should have a vector of it, and how many videos, and users with a like or a profile '
'that the version reads, lack one; it must be attached';
