create or replace function two_tower.require_self(p_user_id uuid) returns void
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    if two_tower.is_service() or auth.uid() = p_user_id then
        return;
    end if;
    if auth.uid() is null then
        raise exception 'not signed in' using errcode = '28000';
    end if;
    raise exception 'this is another user''s' using errcode = '42501';
end
$func$;

comment on function two_tower.require_self(uuid) is
'Raises 28000 when nobody is signed in, 42501 when the user is somebody else than the caller';
