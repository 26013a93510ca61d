-- Inside a definer routine current_user is its owner; the role that PostgREST set, or the login, is who asked.
create or replace function two_tower.is_service() returns boolean
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    return (
        select pg_has_role(c.role, 'service_role', 'usage') or pg_has_role(c.role, n.nspowner, 'usage')
        from (select coalesce(nullif(current_setting('role', true), 'none'), session_user)::name as role) as c
        cross join pg_catalog.pg_namespace n
        where n.nspname = 'two_tower'
    );
end
$func$;

comment on function two_tower.is_service() is 'Whether the caller is service_role, or the owner';
