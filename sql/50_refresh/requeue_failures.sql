-- SECURITY DEFINER: service_role refreshes without being able to write the log or the failures.
create or replace function two_tower.requeue_failures() returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
    -- The row stays until the retry succeeds; retry_at moves on, so that the same failure is queued once.
    with gone as (
        -- Whoever was deleted is not kept, by id, in what failed: queued at once, for what is left to be removed.
        delete from two_tower.change_failures f
        where case f.kind
            when 'user' then not exists (select from auth.users u where u.id = f.id)
            else not exists (select from public.videos v where v.id = f.id)
        end
        returning f.kind, f.id
    ),
    due as (
        update two_tower.change_failures f set retry_at = now() + interval '1 day'
        where f.retry_at <= now() and not exists (select from gone g where g.kind = f.kind and g.id = f.id)
        returning f.kind, f.id
    ),
    queued as (
        select d.kind, d.id from due d union all select g.kind, g.id from gone g
    ),
    users as (
        insert into two_tower.user_changes (user_id) select q.id from queued q where q.kind = 'user'
    )
    insert into two_tower.video_changes (video_id) select q.id from queued q where q.kind = 'video'
$func$;

comment on function two_tower.requeue_failures() is
'Puts changes that were set aside back into the log when their retry is due; those of deleted users and videos at once';
