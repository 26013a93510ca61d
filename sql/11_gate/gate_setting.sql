-- The settings named gate_… are the limits. A caller's overrides hold for one call, and are all checked at each, so that a misspelt
-- name never goes unnoticed.
create or replace function two_tower.gate_setting(p_name text, p_overrides jsonb default null) returns double precision
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_override record;
    v_error text;
begin
    if jsonb_typeof(p_overrides) <> 'object' then
        raise exception 'overrides of the gate must be an object, and are %', p_overrides
            using errcode = '22023', hint = 'Settings by name, such as {"gate_max_drop": 0.1}.';
    end if;
    for v_override in select o.key, o.value from jsonb_each(p_overrides) as o loop
        if v_override.key !~ '^gate_' or not exists (select from two_tower.settings s where s.name = v_override.key) then
            raise exception 'there is no gate setting %', v_override.key
                using errcode = '22023', hint = 'List them: select name, value, description from two_tower.settings where name ~ ''^gate_''';
        end if;
        v_error := two_tower.setting_error(v_override.key, v_override.value, 'override of ');
        if v_error is not null then
            raise exception '%', v_error using errcode = '22023';
        end if;
    end loop;
    return coalesce(round((p_overrides ->> p_name)::numeric, 30)::double precision, two_tower.model_setting(p_name));
end
$func$;

comment on function two_tower.gate_setting(text, jsonb) is
'A limit of the gate: the override of this call, else that of two_tower.settings; 22023 names an unknown override';
