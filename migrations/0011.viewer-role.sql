-- Who looks and touches nothing: the role that `two-tower ui` reads as. What it may read is in sql/, with all other privileges.
-- depends: 0010.status-limits

-- Roles belong to the cluster: another database's migration may create this one at the same moment, and another's way back drop it.
-- The grant keeps it from being dropped once this is committed.
do $viewer$
begin
    for v_attempt in 1 .. 10 loop
        begin
            if not exists (select from pg_catalog.pg_roles where rolname = 'two_tower_viewer') then
                create role two_tower_viewer nologin noinherit;
            end if;
            grant usage on schema two_tower to two_tower_viewer;
            exit;
        exception
            when duplicate_object or unique_violation or undefined_object then
                if v_attempt = 10 then
                    raise;
                end if;
        end;
    end loop;
    -- Whoever migrates may take the role; a superuser may take any.
    if not (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
        begin
            execute 'grant two_tower_viewer to ' || quote_ident(current_user);
        exception when insufficient_privilege then
            raise notice using message = current_user || ' may not take the role two_tower_viewer, which two-tower ui reads as',
                hint = 'As a superuser run: grant two_tower_viewer to ' || quote_ident(current_user);
        end;
    end if;
end
$viewer$;
