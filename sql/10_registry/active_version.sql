-- Not SECURITY DEFINER and without a SET clause: the planner inlines it, and prunes embeddings to one partition. Hence the
-- qualified operator: the caller's search_path must not lend it another.
create or replace function two_tower.active_version() returns text
language sql stable parallel safe security invoker
as $func$
    select m.version from two_tower.model_versions m where m.state operator(pg_catalog.=) 'active'
$func$;

comment on function two_tower.active_version() is 'The model version that serves, or null before the first activation';
