drop function if exists two_tower.refresh_users(uuid[], text[], boolean);
create or replace function two_tower.refresh_users(p_user_ids uuid[], p_versions text[] default null) returns int
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    perform two_tower.store_user_features(p_user_ids);
    return two_tower.write_user_vectors(p_user_ids, coalesce(p_versions, two_tower.live_versions()));
end
$func$;

comment on function two_tower.refresh_users(uuid[], text[]) is
'Recomputes features and vectors of these users from their rows; the number of vectors written. '
'The caller holds their locks, and the versions';
