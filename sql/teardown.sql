-- Drops the logic and leaves the state, so that yoyo can roll the state back and an older checkout can apply its own logic. Nothing here
-- cascades: what the application has built on ours is an error that names it.
do $teardown$
declare
    v_object record;
    v_names text;
begin
    if to_regclass('two_tower.created_objects') is null then
        return;
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
        or c.oid in (select to_regclass(o.name) from two_tower.created_objects o where o.kind = 'view')
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
    delete from two_tower.created_objects where kind in ('routine', 'view', 'renamed routine');
    revoke all on all tables in schema two_tower from public, anon, authenticated, service_role;
    revoke all on schema two_tower from anon, authenticated, service_role;
end
$teardown$;
