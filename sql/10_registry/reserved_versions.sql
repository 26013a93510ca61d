-- The same list as RESERVED_VERSIONS in py/two_tower/lifecycle/registry.py, which refuses them before it trains or uploads anything.
create or replace function two_tower.reserved_versions() returns text[]
language sql immutable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select array['current']
$func$;

comment on function two_tower.reserved_versions() is
'Names, in small letters, that no model version may have in any spelling: what is published keeps other files under them';
