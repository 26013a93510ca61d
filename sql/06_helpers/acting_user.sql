create or replace function two_tower.acting_user(p_user_id uuid) returns uuid
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_user_id uuid;
begin
    if p_user_id is not null then
        if not two_tower.is_service() then
            raise exception 'only service_role may ask on behalf of a user' using errcode = '42501', hint = 'Leave p_user_id out.';
        end if;
        return p_user_id;
    end if;
    -- Not before: a service may have a name that is no id.
    v_user_id := auth.uid();
    if v_user_id is null then
        raise exception 'not signed in' using errcode = '28000';
    end if;
    return v_user_id;
end
$func$;

comment on function two_tower.acting_user(uuid) is
'The acting user: the caller, or the user on whose behalf service_role calls; 42501 for any other caller, 28000 if nobody is signed in';
