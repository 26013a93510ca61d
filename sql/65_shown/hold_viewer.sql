-- A deletion of the user waits for this, or this for the deletion, so no impression is written that the deletion does not find.
--
-- An update, and no mere lock: a transaction that keeps the snapshot from before it waited would not see what the other has logged, and gives
-- way to it only if the row has changed.
create or replace function two_tower.hold_viewer(p_user_id uuid) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    if p_user_id is null then
        raise exception 'not signed in' using errcode = '28000';
    end if;
    update two_tower.impression_users u set user_id = u.user_id where u.user_id = p_user_id;
    if found then
        return;
    end if;
    insert into two_tower.impression_users (user_id)
    select u.id from auth.users u where u.id = p_user_id
    on conflict do nothing;
    update two_tower.impression_users u set user_id = u.user_id where u.user_id = p_user_id;
    if not found then
        raise exception 'there is no user %', p_user_id using errcode = 'P0002';
    end if;
end
$func$;

comment on function two_tower.hold_viewer(uuid) is
'Locks a user until the transaction ends, against other writers of this user''s impressions and against deletion; '
'28000 for null, P0002 if there is no such user, 40001 if the snapshot of the transaction is older than what was logged';
