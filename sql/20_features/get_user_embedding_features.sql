-- SECURITY DEFINER: it must tell an unknown user from one without decisions, and nobody else may read auth.users.
create or replace function public.get_user_embedding_features(user_id uuid) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    perform two_tower.require_self(get_user_embedding_features.user_id);
    if not exists (select from auth.users u where u.id = get_user_embedding_features.user_id) then
        raise exception 'there is no user %', get_user_embedding_features.user_id using errcode = 'P0002';
    end if;
    return (select p.features from two_tower.user_payloads(array[get_user_embedding_features.user_id]) p);
end
$func$;

comment on function public.get_user_embedding_features(uuid) is
'The inputs of the user tower of the version that serves a user, as JSON, and which version that is; for oneself, or for anyone as '
'service_role';
