-- A trigger that is in place is left alone: making one waits for whoever writes to the table, and makes others wait behind it.
create or replace function two_tower.make_triggers() returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_trigger record;
begin
    -- Preflight names these with everything else that is in the way; a file of `two-tower migrate --sql` comes without it.
    select t.tgname as name, t.tgrelid::regclass as relation into v_trigger
    from pg_catalog.pg_trigger t
    join pg_catalog.pg_proc p on p.oid = t.tgfoid
    join two_tower.change_triggers() w on w.relation = t.tgrelid and w.name = t.tgname
    where p.pronamespace <> 'two_tower'::regnamespace
    order by 2, 1 limit 1;
    if found then
        raise exception '% has a trigger % of the application, a name that ours must have', v_trigger.relation, v_trigger.name
            using errcode = '55000', hint = format('Rename it: alter trigger %I on %s rename to ….', v_trigger.name, v_trigger.relation);
    end if;
    for v_trigger in select l.* from two_tower.lacking_triggers() l loop
        execute format('create or replace trigger %I %s', v_trigger.name, v_trigger.definition);
        if v_trigger.enabled <> 'O' then
            execute format(
                'alter table %s enable %s trigger %I', v_trigger.relation,
                case v_trigger.enabled when 'A' then 'always' else 'replica' end, v_trigger.name
            );
        end if;
    end loop;
    -- A table that the application has partitioned since: its rows have a trigger each. And profiles that are no inputs any more.
    for v_trigger in
        select t.tgrelid::regclass as relation, t.tgname as name
        from pg_catalog.pg_trigger t
        join pg_catalog.pg_proc p on p.oid = t.tgfoid
        where (t.tgrelid in (select w.relation from two_tower.change_triggers() w) or t.tgrelid = 'public.profiles'::regclass)
            and t.tgparentid = 0 and p.pronamespace = 'two_tower'::regnamespace
            and not exists (select from two_tower.change_triggers() w where w.relation = t.tgrelid and w.name = t.tgname)
    loop
        execute format('drop trigger %I on %s', v_trigger.name, v_trigger.relation);
    end loop;
end
$func$;

comment on function two_tower.make_triggers() is
'Creates the triggers of two_tower.lacking_triggers(), and drops triggers of ours that are no longer needed';
