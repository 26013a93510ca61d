-- There may be any number of such videos. All at one place, they would be found together or not at all, and an index search gets lost among
-- them. So lists by taste and the index leave them out, and they appear only among the newest.
create or replace function two_tower.place_of_the_unknown(p_version text) returns extensions.halfvec
language sql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select (two_tower.infer(p_version, 'item', array[('{}/' || m.item_dim)::extensions.sparsevec]))[1]
    from two_tower.model_versions m where m.version = p_version
$func$;

comment on function two_tower.place_of_the_unknown(text) is 'The vector of a version for a video of which it knows nothing';
