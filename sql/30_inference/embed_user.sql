drop function if exists public.embed_user(boolean);
-- SECURITY DEFINER: users may not write embeddings, and this computes the caller's own from the caller's own decisions, or a user's for
-- service_role.
create or replace function public.embed_user(force boolean default false, p_user_id uuid default null) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_user_id uuid := two_tower.acting_user(p_user_id);
    v_written int;
    v_version text;
begin
    perform two_tower.require_primary('embed_user()');
    if not exists (select from auth.users u where u.id = v_user_id) then
        raise exception 'there is no user %', v_user_id using errcode = 'P0002';
    end if;
    perform two_tower.require_model(null);
    perform two_tower.hold_versions('client');
    perform two_tower.lock_changes('user', array[v_user_id]);
    delete from two_tower.user_changes c where c.user_id = v_user_id;
    -- The log has no index. Where reading it would take the caller's time, what it has of this user is left to the refresh, which
    -- finds nothing to write.
    if pg_relation_size('two_tower.user_change_log') < 128 * 1024 then
        delete from two_tower.user_change_log l
        where l.ctid = any (array(
            select c.ctid from two_tower.user_change_log c where c.user_id = v_user_id for update skip locked
        ));
    end if;
    v_written := two_tower.refresh_users(array[v_user_id]);
    -- A snapshot from before the locks may be older than what a refresh has taken out of the log, or than a version: once more, then.
    if current_setting('transaction_isolation') <> 'read committed' then
        insert into two_tower.user_changes (user_id) values (v_user_id);
    end if;
    v_version := two_tower.served_version(v_user_id);
    return jsonb_build_object(
        'success', true,
        'user_id', v_user_id,
        'message', case
            when v_written > 0 then 'features and embedding updated'
            when exists (
                select from two_tower.user_embeddings e where e.user_id = v_user_id and e.model_version = v_version
            ) then 'features and embedding were up to date'
            when two_tower.personalised(array[v_user_id]) = '{}' then 'the user chose that no lists be made of decisions'
            else 'no likes to embed'
        end,
        'model_version', v_version
    );
end
$func$;

comment on function public.embed_user(boolean, uuid) is
'Updates the features and embedding of the caller, or of the user on whose behalf service_role calls, before it returns. The vector is '
'computed from the rows with and without force';
