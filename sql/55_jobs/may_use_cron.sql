-- Asked first, since to look up a name in a schema that one may not use is an error.
create or replace function two_tower.may_use_cron() returns boolean
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select coalesce(has_schema_privilege(to_regnamespace('cron'), 'usage'), false)
$func$;

comment on function two_tower.may_use_cron() is 'Whether there is pg_cron here, and the caller may use it';
