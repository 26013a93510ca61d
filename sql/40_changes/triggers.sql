-- Every input of the towers, and every way in which it can change. A trigger that is in place is left alone: making one waits for whoever
-- writes to the table, and makes others wait behind it.

-- What an adopted table holds was decided before there was a log; the first refresh must find it there.
do $adopted$
begin
    if not exists (
        select from pg_catalog.pg_trigger t
        where t.tgrelid = 'public.user_video_decisions'::regclass and t.tgname = 'two_tower_insert'
    ) then
        -- What creating a trigger takes anyway: nobody decides between this and the triggers below.
        lock table public.user_video_decisions in share row exclusive mode;
        insert into two_tower.user_changes (user_id)
        select distinct d.user_id from public.user_video_decisions d where two_tower.decision_label(d.decision_type) <> -1;
    end if;
end
$adopted$;

do $triggers$
declare
    v_trigger record;
begin
    for v_trigger in
        select format('public.%I', k.relation)::regclass as relation, 'two_tower_' || e.event as name, e.event,
            format('two_tower.%I()', 'log_' || case e.event when 'truncate' then 'truncated' when 'insert' then 'inserted'
                when 'update' then 'updated' else 'deleted' end || '_' || case
                    when k.what = 'attributes' and e.event = 'truncate' then 'videos' else k.what end)::regprocedure as routine,
            case when e.event in ('update', 'delete') then 'old_rows' end as old_rows,
            case when e.event in ('insert', 'update') then 'new_rows' end as new_rows
        from (values ('user_video_decisions', 'decisions'), ('videos', 'videos'), ('video_tags', 'attributes'), ('video_performers', 'attributes'))
            as k (relation, what)
        cross join unnest(array['insert', 'update', 'delete', 'truncate']) as e (event)
    loop
        if not exists (
            select from pg_catalog.pg_trigger t
            where t.tgrelid = v_trigger.relation and t.tgname = v_trigger.name and t.tgfoid = v_trigger.routine and t.tgenabled in ('O', 'A')
                and t.tgoldtable::text is not distinct from v_trigger.old_rows and t.tgnewtable::text is not distinct from v_trigger.new_rows
        ) then
            execute format(
                'create or replace trigger %I after %s on %s %s for each statement execute function %s',
                v_trigger.name, v_trigger.event, v_trigger.relation,
                case when v_trigger.event <> 'truncate' then 'referencing'
                    || coalesce(' old table as ' || v_trigger.old_rows, '') || coalesce(' new table as ' || v_trigger.new_rows, '')
                else '' end,
                v_trigger.routine
            );
        end if;
    end loop;
end
$triggers$;
