-- Not SECURITY DEFINER and without a SET clause: the planner inlines it, and prunes embeddings to one partition.
create or replace function two_tower.active_version() returns text
language sql stable parallel safe security invoker
as $func$
    select m.version from two_tower.model_versions m where m.state = 'active'
$func$;

comment on function two_tower.active_version() is 'The model version that serves, or null before the first activation';
