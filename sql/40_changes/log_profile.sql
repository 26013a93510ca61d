-- Towers read only some columns of a profile: a change that leaves those alone is not logged. If the table has no such key
-- any more, it may be anybody.
--
-- SECURITY DEFINER: whoever may write a profile may not write the log.
create or replace function two_tower.log_profile() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    c_key constant name := two_tower.account_key();
    v_name name;
    v_value text;
    v_user_ids uuid[] := '{}';
    v_old text[] := '{}';
    v_new text[] := '{}';
begin
    -- As they print, which is what keys are made of: as jsonb, 1 would be 1.0.
    for v_name in
        select a.attname from pg_catalog.pg_attribute a
        where a.attrelid = 'public.profiles'::regclass and not a.attisdropped
            and (a.attname = c_key or exists (select from two_tower.profile_inputs i where i.name = a.attname))
    loop
        if tg_op <> 'INSERT' then
            execute format('select ($1).%I::text', v_name) into v_value using old;
            v_old := array_append(v_old, v_value);
            if v_name = c_key then
                v_user_ids := v_user_ids || two_tower.id_of_word(v_value);
            end if;
        end if;
        if tg_op <> 'DELETE' then
            execute format('select ($1).%I::text', v_name) into v_value using new;
            v_new := array_append(v_new, v_value);
            if v_name = c_key then
                v_user_ids := v_user_ids || two_tower.id_of_word(v_value);
            end if;
        end if;
    end loop;
    if tg_op = 'UPDATE' and v_old is not distinct from v_new then
        return null;
    end if;
    insert into two_tower.user_change_log (user_id)
    select distinct u.id from unnest(case when c_key is null then array[two_tower.id_of_word(null)] else v_user_ids end) as u (id);
    return null;
end
$func$;

comment on function two_tower.log_profile() is
'Trigger: logs the user of a profile that came, went or changed in what towers read';
