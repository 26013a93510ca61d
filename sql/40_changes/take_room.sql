-- Each user or video of a batch is an advisory lock until its transaction ends, in a table that all sessions share. If it is full, the next
-- lock fails with 53200, even that of a like. So batches share half of that table, in rooms, and a batch takes one before anything else.
-- The rooms that a transaction has are in two_tower.rooms, since a session may take the same lock twice.
create or replace function two_tower.take_room(p_wait boolean) returns int
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
-- Waits here are for a batch, and the database's default lock_timeout must not end them.
set lock_timeout = 0
as $func$
declare
    c_key constant int := hashtext('two_tower.room');
    c_locks constant int := current_setting('max_locks_per_transaction')::int
        * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int) / 2;
    c_size constant int := greatest(least(1000, c_locks / 8), 1);
    c_rooms constant int := c_locks / c_size;
    v_taken int[] := coalesce(string_to_array(nullif(current_setting('two_tower.rooms', true), ''), ',')::int[], '{}');
    v_first int := random() * c_rooms;
    v_room int;
begin
    for v_next in v_first .. v_first + c_rooms - 1 loop
        v_room := v_next % c_rooms;
        if v_room <> all (v_taken) and pg_try_advisory_xact_lock(c_key, v_room) then
            perform set_config('two_tower.rooms', array_to_string(v_taken || v_room, ','), true);
            return c_size;
        end if;
    end loop;
    if not p_wait then
        return 0;
    end if;
    perform pg_advisory_xact_lock(c_key, v_room);
    perform set_config('two_tower.rooms', array_to_string(v_taken || v_room, ','), true);
    return c_size;
end
$func$;

comment on function two_tower.take_room(boolean) is
'How many users or videos this transaction may lock now; 0 if others have locked as many as allowed, unless it waits for one of them';
