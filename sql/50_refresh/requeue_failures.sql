-- SECURITY DEFINER: service_role refreshes, and nobody but the owner may write the log or what is set aside.
create or replace function two_tower.requeue_failures() returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
    -- The row stays until the retry succeeds; retry_at moves on, so that the same failure is queued once.
    with due as (
        update two_tower.change_failures f set retry_at = now() + interval '1 day' where f.retry_at <= now() returning f.kind, f.id
    ),
    users as (
        insert into two_tower.user_changes (user_id) select d.id from due d where d.kind = 'user'
    )
    insert into two_tower.video_changes (video_id) select d.id from due d where d.kind = 'video'
$func$;

comment on function two_tower.requeue_failures() is 'Puts set-aside changes whose time has come back into the log';
