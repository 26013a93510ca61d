-- Not SECURITY DEFINER: a client reads of the registry what row level security shows, which is the active version. STABLE, so that a
-- query on embeddings leaves all partitions but one aside before it begins. In plpgsql, which plans once in a connection and not for every call.
create or replace function two_tower.active_version() returns text
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    return (select m.version from two_tower.model_versions m where m.state = 'active');
end
$func$;

comment on function two_tower.active_version() is
'The model version that serves whoever is in no experiment''s share, or null before the first activation';
