-- Extensions are in Supabase's schema for them, unless the database has them elsewhere. preflight/ reports beforehand what is missing.
-- depends: 0001.schemas-and-roles

do $extensions$
begin
    if not exists (select from pg_catalog.pg_extension where extname = 'vector') then
        if to_regnamespace('extensions') is null then
            create schema extensions;
            grant usage on schema extensions to public;
            insert into two_tower.created_objects values ('schema', 'extensions');
        end if;
        create extension vector with schema extensions;
        insert into two_tower.created_objects values ('extension', 'vector');
    end if;
    -- Only for the engine onnxruntime, and only for superusers: databases that other roles migrate compute in SQL.
    if (select rolsuper from pg_catalog.pg_roles where rolname = current_user)
        and exists (select from pg_catalog.pg_available_extensions where name = 'plpython3u')
        and not exists (select from pg_catalog.pg_extension where extname = 'plpython3u')
    then
        create extension plpython3u;
        insert into two_tower.created_objects values ('extension', 'plpython3u');
    end if;
    -- pg_cron works in only one database of the cluster. An ordinary role cannot see which, so it tries.
    if coalesce((select c.setting from pg_catalog.pg_settings c where c.name = 'cron.database_name'), current_database()) = current_database()
        and exists (select from pg_catalog.pg_available_extensions where name = 'pg_cron')
        and not exists (select from pg_catalog.pg_extension where extname = 'pg_cron')
    then
        begin
            create extension pg_cron;
            insert into two_tower.created_objects values ('extension', 'pg_cron');
        exception when others then
            raise notice using message = 'pg_cron is not created, so nothing is scheduled in this database: ' || sqlerrm,
                hint = 'Let two-tower refresh --every 60 run as a service; or create the extension as a superuser, and migrate again.';
        end;
    end if;
end
$extensions$;
