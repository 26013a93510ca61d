-- SECURITY DEFINER: service_role asks, and which experiment runs is nobody's to read. Clients ask own_version() of themselves.
-- STABLE and in plpgsql as active_version().
create or replace function two_tower.served_version(p_user_id uuid) returns text
language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    return coalesce(
        (
            select e.challenger from two_tower.experiments e
            where e.stopped_at is null and two_tower.in_share(p_user_id, e.id, e.share)
        ),
        (select m.version from two_tower.model_versions m where m.state = 'active')
    );
end
$func$;

comment on function two_tower.served_version(uuid) is
'The model version that serves a user: during an experiment that of the user''s share, otherwise the active one; '
'for null the active one';
