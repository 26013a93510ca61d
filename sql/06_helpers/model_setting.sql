-- Nobody can set another value (check_setting()), but a session without triggers, such as one that restores a dump.
create or replace function two_tower.model_setting(p_name text) returns double precision
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_value jsonb := (select s.value from two_tower.settings s where s.name = p_name);
    v_error text := two_tower.setting_error(p_name, v_value);
begin
    if v_error is not null or jsonb_typeof(v_value) is distinct from 'number' then
        raise exception '%', coalesce(v_error, format('there is no number of the name %s among the settings', p_name))
            using errcode = '22023', hint = format('update two_tower.settings set value = ... where name = %L', p_name);
    end if;
    -- What has more places than these may have no value in double precision.
    return round(v_value::numeric, 30)::double precision;
end
$func$;

comment on function two_tower.model_setting(text) is 'A number that two_tower.settings must have';
