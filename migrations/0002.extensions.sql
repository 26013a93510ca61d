-- Extensions live where Supabase keeps them. Each missing one is an error that names the package to install.
-- depends: 0001.schemas-and-roles

do $extensions$
declare
    v_major int := current_setting('server_version_num')::int / 10000;
    v_package text;
    v_extension text;
begin
    if v_major not between 15 and 18 then
        raise exception using errcode = '0A000',
            message = 'pg-two-tower runs on PostgreSQL 15 to 18; this server is ' || current_setting('server_version'),
            hint = 'Connect to a supported server.';
    end if;
    if to_regnamespace('extensions') is null then
        create schema extensions;
        grant usage on schema extensions to public;
        insert into two_tower.created_objects values ('schema', 'extensions');
    end if;
    for v_extension, v_package in
        values ('vector', 'postgresql-' || v_major || '-pgvector'), ('plpython3u', 'postgresql-plpython3-' || v_major)
    loop
        if exists (select from pg_catalog.pg_extension where extname = v_extension) then
            continue;
        end if;
        if not exists (select from pg_catalog.pg_available_extensions where name = v_extension) then
            raise exception using errcode = '0A000',
                message = 'the extension ' || v_extension || ' is not installed on this server',
                hint = 'Install the package ' || v_package || ' on the server, then migrate again.';
        end if;
        begin
            if v_extension = 'vector' then
                create extension vector with schema extensions;
            else
                create extension plpython3u;
            end if;
        exception when insufficient_privilege then
            raise exception using errcode = '42501',
                message = 'the role ' || current_user || ' may not create the extension ' || v_extension,
                hint = 'As a superuser run: create extension ' || v_extension
                    || case v_extension when 'vector' then ' with schema extensions' else '' end || '; then migrate again.';
        end;
    end loop;
    if not exists (
        select from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace
        where e.extname = 'vector' and n.nspname = 'extensions'
    ) then
        raise exception 'the extension vector is installed in another schema than extensions'
            using errcode = '0A000', hint = 'Run: create schema if not exists extensions; grant usage on schema extensions to public; '
                || 'alter extension vector set schema extensions; then migrate again.';
    end if;
    if exists (
        select from pg_catalog.pg_extension
        where extname = 'vector' and string_to_array(extversion, '.')::int[] < '{0,8,0}'
    ) then
        raise exception 'pgvector 0.8.0 or newer is needed, for iterative index scans'
            using errcode = '0A000', hint = 'Upgrade the package, then run: alter extension vector update;';
    end if;
    -- pg_cron works in one database of the cluster alone.
    if current_setting('cron.database_name', true) = current_database()
        and exists (select from pg_catalog.pg_available_extensions where name = 'pg_cron')
    then
        create extension if not exists pg_cron;
    end if;
end
$extensions$;
