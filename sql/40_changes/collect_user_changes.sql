-- This takes no lock that a writer needs. Rows that another transaction has taken are left to it: it puts them into user_changes, or
-- rolls back and leaves them here. A user who is already in user_changes gets another row there, since a batch that read the decisions before
-- this change may be about to delete the existing one.
--
-- SECURITY DEFINER: service_role refreshes, and nobody but the owner may write the log.
create or replace function two_tower.collect_user_changes() returns int
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
    with taken as (
        delete from two_tower.user_change_log l
        where l.ctid = any (array(select c.ctid from two_tower.user_change_log c for update skip locked))
        returning l.user_id, l.logged_at
    ),
    collected as (
        insert into two_tower.user_changes (user_id, logged_at)
        select t.user_id, min(t.logged_at) from taken t group by t.user_id
        returning 1
    )
    select count(*)::int from collected
$func$;

comment on function two_tower.collect_user_changes() is
'Moves what triggers logged into user_changes, from which refresh_batch() takes users, a row for each user; how many';
