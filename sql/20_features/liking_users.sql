-- Users who should have a vector, from the application's rows and never from the output of a refresh. Columns may be absent, or of another type:
-- as for triggers (sql/40_changes/log_user_changes.sql).
--
-- SECURITY DEFINER: a role that checks how complete the vectors are need not see who likes what.
create or replace function two_tower.liking_users() returns setof uuid
language sql stable parallel safe security definer set search_path = pg_catalog, pg_temp
as $func$
    select distinct d.user_id
    from (select null::uuid as user_id, null::uuid as video_id, 'skip' as decision_type) as absent
    cross join lateral (
        select two_tower.id_of(user_id) as user_id, two_tower.id_of(video_id) as video_id
        from public.user_video_decisions where two_tower.decision_label(decision_type) = 1
    ) as d
    where exists (select from (select null::uuid as id) as lacking cross join lateral (select id as video_id from public.videos) as v where v.video_id = d.video_id)
        and not exists (select from two_tower.user_choices c where c.user_id = d.user_id and not c.personalised)
$func$;

comment on function two_tower.liking_users() is 
'Users who should have a vector: those with a like of an existing video who have not opted out';
