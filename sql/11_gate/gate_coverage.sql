-- What is in the change log is not missing: the next refresh writes it, for every version. Nor is what is set aside as failed
-- for the active version too.
create or replace function two_tower.gate_coverage(p_version text, out videos bigint, out users bigint)
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_active text := two_tower.active_version();
begin
    -- Without the column id, too, so that two_tower.problems can say so: log_user_changes.sql says how.
    select count(*) into videos
    from (select null::uuid as id) as absent
    cross join lateral (select id as video_id from public.videos) as v
    where not exists (select from two_tower.video_embeddings e where e.model_version = p_version and e.video_id = v.video_id)
        and not exists (select from two_tower.video_changes c where c.video_id = v.video_id)
        and not (
            v_active is not null
            and exists (select from two_tower.change_failures f where f.kind = 'video' and f.id = v.video_id)
            and not exists (select from two_tower.video_embeddings e where e.model_version = v_active and e.video_id = v.video_id)
        );
    -- Who has no vector is found among keys alone, since rows of features are wide.
    select count(*) into users
    from (
        select k.user_id from two_tower.user_features k
        where not exists (select from two_tower.user_embeddings e where e.model_version = p_version and e.user_id = k.user_id)
        offset 0
    ) as m
    join two_tower.user_features f on f.user_id = m.user_id
    where f.like_count > 0
        and not exists (select from two_tower.pending_users c where c.user_id = f.user_id)
        and not (
            v_active is not null
            and exists (select from two_tower.change_failures c where c.kind = 'user' and c.id = f.user_id)
            and not exists (select from two_tower.user_embeddings e where e.model_version = v_active and e.user_id = f.user_id)
        );
end
$func$;

comment on function two_tower.gate_coverage(text) is 'How many videos, and users with a like, lack a vector of an attached version';
