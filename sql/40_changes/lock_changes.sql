-- Two refreshes must not work on the same user at once: the one that read first could write last, and a change would be
-- lost until the next. The locks are advisory and end with the transaction, so no row of the application is ever locked.
-- They are taken in id order by everyone who waits for them. take_room() says how many a batch may take.
-- Not a string, so that it is expanded where it is called.
create or replace function two_tower.change_key(p_kind text, p_id uuid) returns bigint
language sql immutable parallel safe security invoker
return hashtextextended(p_kind || p_id::text, 7207);

create or replace function two_tower.lock_changes(p_kind text, p_ids uuid[]) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    perform pg_advisory_xact_lock(k.key)
    from (select distinct two_tower.change_key(p_kind, i.id) as key from unnest(p_ids) as i (id) order by key) as k;
end
$func$;

create or replace function two_tower.try_lock_changes(p_kind text, p_ids uuid[]) returns uuid[]
language sql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
    select coalesce(array_agg(i.id order by i.id) filter (where pg_try_advisory_xact_lock(two_tower.change_key(p_kind, i.id))), '{}')
    from unnest(p_ids) as i (id)
$func$;

comment on function two_tower.change_key(text, uuid) is 'The advisory lock of one user or video';
comment on function two_tower.lock_changes(text, uuid[]) is 'Waits until no other transaction refreshes any of these, and locks them';
comment on function two_tower.try_lock_changes(text, uuid[]) is 'Those of these that no other transaction refreshes, now locked';
