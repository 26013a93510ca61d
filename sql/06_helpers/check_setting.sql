-- An invalid setting is refused when it is set, not days later when it is read.
create or replace function two_tower.check_setting() returns trigger
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_error text;
begin
    -- Of a name that is a setting, no value is an error.
    if tg_op <> 'INSERT' and two_tower.setting_error(old.name, null) is not null and (tg_op = 'DELETE' or new.name is distinct from old.name) then
        raise exception 'the setting % can be neither removed nor renamed: it is read', old.name
            using errcode = '22023', hint = format('update two_tower.settings set value = ... where name = %L', old.name);
    end if;
    if tg_op = 'DELETE' then
        return old;
    end if;
    v_error := two_tower.setting_error(new.name, new.value);
    if v_error is not null then
        raise exception '%', v_error using errcode = '22023';
    end if;
    return new;
end
$func$;

comment on function two_tower.check_setting() is 'Trigger: refuses a value that a setting cannot have (22023)';

create or replace trigger two_tower_check before insert or update or delete on two_tower.settings
for each row execute function two_tower.check_setting();
