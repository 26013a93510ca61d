-- Pending changes are not missing, since the next refresh writes them for every version. Nor are changes set aside that the active
-- version lacks too.
--
-- SECURITY DEFINER: the page's role asks, and reads the decisions only through this count.
create or replace function two_tower.gate_coverage(p_version text, out videos bigint, out users bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    -- What the log says for everybody.
    c_everybody constant uuid := '00000000-0000-0000-0000-000000000000';
    v_active text := two_tower.active_version();
begin
    -- Without the column id, too, so that two_tower.problems can say so: log_user_changes.sql says how.
    select count(*) into videos
    from (select null::uuid as id) as absent
    cross join lateral (select id as video_id from public.videos) as v
    where not exists (select from two_tower.video_embeddings e where e.model_version = p_version and e.video_id = v.video_id)
        and not exists (select from two_tower.video_changes c where c.video_id in (v.video_id, c_everybody))
        and not (
            v_active is not null
            and exists (select from two_tower.change_failures f where f.kind = 'video' and f.id = v.video_id)
            and not exists (select from two_tower.video_embeddings e where e.model_version = v_active and e.video_id = v.video_id)
        );
    select count(*) into users
    from (
        select u from two_tower.liking_users() as u
        union all
        select u from two_tower.users_by_profile(p_version, p_lacking => true) as u
    ) as l (user_id)
    where not exists (select from two_tower.user_embeddings e where e.model_version = p_version and e.user_id = l.user_id)
        and not exists (select from two_tower.pending_users c where c.user_id in (l.user_id, c_everybody))
        and not (
            v_active is not null
            and exists (select from two_tower.change_failures c where c.kind = 'user' and c.id = l.user_id)
            and not exists (select from two_tower.user_embeddings e where e.model_version = v_active and e.user_id = l.user_id)
        );
end
$func$;

comment on function two_tower.gate_coverage(text) is
'How many videos, and users with a like or a profile that the version reads, lack a vector of an attached version';
