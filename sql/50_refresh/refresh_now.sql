create or replace function two_tower.refresh_now() returns jsonb
language plpgsql volatile security invoker set search_path = ''
as $func$
declare
    v_done jsonb := '{"users": 0, "videos": 0, "vectors": 0, "failed": 0}';
    v_after uuid;
    v_batch record;
begin
    loop
        select b.result, b.last_id into v_batch from two_tower.refresh_batch(v_after) b;
        v_done := (select jsonb_object_agg(d.key, d.value::int + (v_batch.result ->> d.key)::int) from jsonb_each_text(v_done) d);
        continue when (v_batch.result ->> 'videos')::int > 0;
        exit when v_batch.last_id is null;
        v_after := v_batch.last_id;
    end loop;
    return v_done;
end
$func$;

comment on function two_tower.refresh_now() is 'Drains the change log within the caller''s transaction; counts';
