-- Drops the logic and keeps the state, so that yoyo can roll the state back and an older checkout can apply its own logic. Nothing here
-- cascades: an object of the application that depends on ours causes an error that names it.
do $teardown$
declare
    v_object record;
    v_names text;
begin
    if to_regclass('two_tower.created_objects') is null then
        return;
    end if;
    -- Names are all that is kept of what was made. A table of ours has a policy of ours, which goes where it goes; one without is the
    -- application's, made since, and its rows are not ours to drop.
    select string_agg(o.name, ', ') into v_names
    from two_tower.created_objects o
    -- Names of routines are no names of relations, and would raise.
    cross join lateral (select case when o.kind = 'table' and starts_with(o.name, 'public.') then to_regclass(o.name) end as oid) as c
    where c.oid is not null
        and not exists (select from pg_catalog.pg_policy p where p.polrelid = c.oid and p.polname = 'two_tower_viewer');
    if v_names is not null then
        raise exception '% is not what migrations made under that name, or its policy two_tower_viewer is gone', v_names
            using errcode = '55000', hint = 'Rename it until the way back is done; what migrations made is dropped then, where it has its name.';
    end if;
    if to_regprocedure('two_tower.unschedule_jobs()') is not null then
        perform two_tower.unschedule_jobs();
    end if;
    for v_object in
        select t.tgname, t.tgrelid::regclass as relation
        from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid
        where p.pronamespace = 'two_tower'::regnamespace and t.tgparentid = 0
    loop
        execute format('drop trigger %I on %s', v_object.tgname, v_object.relation);
    end loop;
    -- Routines of ours in public first: one returns a row of a view of ours.
    select string_agg(p.oid::regprocedure::text, ', ') into v_names
    from two_tower.created_objects o join pg_catalog.pg_proc p on p.oid = to_regprocedure(o.name)
    where o.kind = 'routine';
    if v_names is not null then
        execute 'drop routine ' || v_names;
    end if;
    select string_agg(c.oid::regclass::text, ', ') into v_names
    from pg_catalog.pg_class c
    where c.relkind = 'v' and (
        c.relnamespace = 'two_tower'::regnamespace
        or c.oid in (
            -- One of that name that reads nothing of ours is the application's, made since.
            select w.ev_class
            from two_tower.created_objects o
            join pg_catalog.pg_rewrite w on w.ev_class = case when o.kind = 'view' then to_regclass(o.name) end
            join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = w.oid
            join pg_catalog.pg_class r on r.oid = d.refobjid and r.relnamespace = 'two_tower'::regnamespace
        )
    );
    if v_names is not null then
        execute 'drop view ' || v_names;
    end if;
    select string_agg(p.oid::regprocedure::text, ', ') into v_names
    from pg_catalog.pg_proc p where p.pronamespace = 'two_tower'::regnamespace;
    if v_names is not null then
        execute 'drop routine ' || v_names;
    end if;
    for v_object in select o.name from two_tower.created_objects o where o.kind = 'renamed routine' loop
        execute format(
            'alter routine %s(%s rename to %I', split_part(v_object.name, '(', 1) || '_before_two_tower', split_part(v_object.name, '(', 2),
            split_part(split_part(v_object.name, '(', 1), '.', 2)
        );
    end loop;
    for v_object in select p.polrelid::regclass as relation from pg_catalog.pg_policy p where p.polname = 'two_tower_service' loop
        execute format('drop policy two_tower_service on %s', v_object.relation);
    end loop;
    delete from two_tower.created_objects where kind in ('routine', 'view', 'renamed routine');
    revoke all on all tables in schema two_tower from public, anon, authenticated, service_role;
    revoke all on schema two_tower from anon, authenticated, service_role;
end
$teardown$;
