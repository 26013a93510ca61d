-- Every input of the towers, and every way in which it can change. A trigger that is in place is left alone: making one waits for whoever
-- writes to the table, and makes others wait behind it.

-- Preflight names these with everything else that is in the way; a file of `two-tower migrate --sql` comes without it.
do $names$
declare
    v_trigger record;
begin
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
end
$names$;

-- What an adopted table holds was decided before there was a log; the first refresh must find it there.
do $adopted$
begin
    if not exists (
        select from pg_catalog.pg_trigger t
        where t.tgrelid = 'public.user_video_decisions'::regclass and t.tgname in ('two_tower_insert', 'two_tower_row')
    ) then
        -- What creating a trigger takes anyway: nobody decides between this and the triggers below.
        lock table public.user_video_decisions in share row exclusive mode;
        insert into two_tower.user_changes (user_id)
        -- A superuser may be who migrates, and a cast of the application's would run as one: concat() calls none. Whom a word says
        -- nothing of is logged, too, as a cast may say more.
        select distinct d.user_id from public.user_video_decisions d
        where two_tower.label_of_word(concat(d.decision_type)) is distinct from -1;
    end if;
end
$adopted$;

do $triggers$
declare
    v_trigger record;
begin
    for v_trigger in select l.* from two_tower.lacking_triggers() l loop
        execute format('create or replace trigger %I %s', v_trigger.name, v_trigger.definition);
        if v_trigger.enabled <> 'O' then
            execute format(
                'alter table %s enable %s trigger %I', v_trigger.relation,
                case v_trigger.enabled when 'A' then 'always' else 'replica' end, v_trigger.name
            );
        end if;
    end loop;
    -- A table that the application has partitioned since: its rows have a trigger each.
    for v_trigger in
        select t.tgrelid::regclass as relation, t.tgname as name
        from pg_catalog.pg_trigger t
        join pg_catalog.pg_proc p on p.oid = t.tgfoid
        where t.tgrelid in (select w.relation from two_tower.change_triggers() w) and t.tgparentid = 0
            and p.pronamespace = 'two_tower'::regnamespace
            and not exists (select from two_tower.change_triggers() w where w.relation = t.tgrelid and w.name = t.tgname)
    loop
        execute format('drop trigger %I on %s', v_trigger.name, v_trigger.relation);
    end loop;
end
$triggers$;
