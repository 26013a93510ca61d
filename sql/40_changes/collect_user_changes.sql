-- Between this and a writer there is no lock. Rows that another transaction takes are that one's: it puts them into user_changes, or
-- is rolled back and leaves them here. A user who is in user_changes already gets another row there: the one that is there may be
-- about to be deleted by a batch that read the decisions before this change.
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
'Moves what triggers logged to where refresh_batch() takes users from, a row for each user; how many';
