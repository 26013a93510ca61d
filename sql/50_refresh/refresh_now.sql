create or replace function two_tower.refresh_now() returns jsonb
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    -- Half of what two_tower.take_room() allows, since the caller's transaction may stay open. The rest stays in the log for the next
    -- refresh().
    c_most constant int := current_setting('max_locks_per_transaction')::int * current_setting('max_connections')::int / 4;
    v_done jsonb := '{"users": 0, "videos": 0, "vectors": 0, "failed": 0}';
    v_after uuid;
    v_batch record;
begin
    perform two_tower.collect_user_changes();
    loop
        select b.result, b.last_id into v_batch from two_tower.refresh_batch(v_after) b;
        v_done := (select jsonb_object_agg(d.key, d.value::int + (v_batch.result ->> d.key)::int) from jsonb_each_text(v_done) d);
        exit when (v_done ->> 'users')::int + (v_done ->> 'videos')::int > c_most;
        continue when (v_batch.result ->> 'videos')::int > 0;
        exit when v_batch.last_id is null;
        v_after := v_batch.last_id;
    end loop;
    return v_done || jsonb_build_object('pending', (
        (select count(distinct c.user_id) from two_tower.pending_users c) + (select count(distinct c.video_id) from two_tower.video_changes c)
    ));
end
$func$;

comment on function two_tower.refresh_now() is 'Drains the change log within the caller''s transaction; counts, and what is left pending';
