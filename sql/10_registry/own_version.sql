-- SECURITY DEFINER: a client may not ask which version serves somebody else.
-- STABLE and in plpgsql as active_version().
create or replace function two_tower.own_version() returns text
language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    return two_tower.served_version(auth.uid());
end
$func$;

comment on function two_tower.own_version() is
'The model version that serves the caller; the active one if nobody is signed in';
