-- SECURITY DEFINER: service_role marks users without owning the log.
create or replace function two_tower.mark_users(
    p_recent interval default null, p_min_likes int default 1, p_include_existing boolean default false, p_limit int default null
)
returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_marked int;
begin
    insert into two_tower.user_changes (user_id)
    select s from two_tower.stale_users(p_recent, p_min_likes, p_include_existing, p_limit) as s;
    get diagnostics v_marked = row_count;
    return v_marked;
end
$func$;

comment on function two_tower.mark_users(interval, int, boolean, int) is
'Puts the users of stale_users() into the change log, for the next refresh; how many';
