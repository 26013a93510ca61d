-- Not SECURITY DEFINER: row level security shows clients only the active version. STABLE, so that a
-- query on embeddings prunes all partitions but one before it begins. In plpgsql, which plans once per connection and not per call.
create or replace function two_tower.active_version() returns text
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    return (select m.version from two_tower.model_versions m where m.state = 'active');
end
$func$;

comment on function two_tower.active_version() is
'The model version that serves everybody outside an experiment''s share, or null before the first activation';
