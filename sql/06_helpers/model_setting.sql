create or replace function two_tower.model_setting(p_name text) returns double precision
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_value jsonb := (select s.value from two_tower.settings s where s.name = p_name);
begin
    if jsonb_typeof(v_value) is distinct from 'number' then
        raise exception 'the setting % must be a number, and is %', p_name, coalesce(v_value::text, 'missing')
            using errcode = '22023', hint = format('update two_tower.settings set value = ... where name = %L', p_name);
    end if;
    return v_value::text::double precision;
end
$func$;

comment on function two_tower.model_setting(text) is 'A number that two_tower.settings must have';
