-- Not SECURITY DEFINER: a client reads of the registry what row level security shows, which is the active version. STABLE, so that a
-- query on embeddings leaves all partitions but one aside before it begins.
create or replace function two_tower.active_version() returns text
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select m.version from two_tower.model_versions m where m.state = 'active'
$func$;

comment on function two_tower.active_version() is 'The model version that serves, or null before the first activation';
