-- Extensions that we installed are dropped, unless the application uses them by now, or they belong to a superuser and another role goes
-- back.
do $extensions$
declare
    v_extension text;
    v_used boolean;
begin
    for v_extension in select name from two_tower.created_objects where kind = 'extension' loop
        v_used := false;
        begin
            if v_extension = 'pg_cron' and to_regclass('cron.job') is not null then
                execute 'select exists (select from cron.job)' into v_used;
            end if;
            if not v_used then
                execute 'drop extension if exists ' || quote_ident(v_extension);
            end if;
        exception
            when dependent_objects_still_exist then null;
            when insufficient_privilege then
                raise notice using message = 'the extension ' || v_extension || ' stays: ' || sqlerrm;
        end;
    end loop;
    if exists (select from two_tower.created_objects where kind = 'schema' and name = 'extensions') then
        begin
            drop schema if exists extensions;
        exception when dependent_objects_still_exist or insufficient_privilege then null;
        end;
    end if;
end
$extensions$;
