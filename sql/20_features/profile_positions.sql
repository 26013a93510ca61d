create or replace function two_tower.profile_positions(p_user_ids uuid[], p_version text) returns table (user_id uuid, place int)
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp set plan_cache_mode = 'force_generic_plan'
as $func$
begin
    if not two_tower.reads_profiles(p_version) then
        return;
    end if;
    return query
    select u.id, i.position
    from (select distinct d.id from unnest(p_user_ids) as d (id)) as u
    cross join lateral two_tower.profile_keys(u.id) k
    join two_tower.model_inputs i on i.model_version = p_version and i.tower = 'user' and i.segment = k.kind and i.key = k.key;
end
$func$;

comment on function two_tower.profile_positions(uuid[], text) is
'The inputs of a version from the profiles of these users, each of them 1; none for a version that reads no profiles';
