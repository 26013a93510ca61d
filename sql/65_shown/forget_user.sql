-- SECURITY DEFINER: service_role forgets users without being able to write what is kept of them.
--
-- Of the account itself nothing is touched: it is the application's, or Supabase's. Decisions go first, so that the refresh below, which holds
-- the user as every refresh does, leaves neither features nor vectors; and the log last, which has the user once more by then.
create or replace function two_tower.forget_user(p_user_id uuid) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_done jsonb := '{}';
    v_rows int;
    v_table text;
    c_path constant text := current_setting('search_path');
begin
    if p_user_id is null then
        raise exception 'say which user is to be forgotten' using errcode = '22023';
    end if;
    perform two_tower.hold_versions('client');
    perform two_tower.lock_changes('user', array[p_user_id]);
    -- In the order in which a deletion of the account reaches them.
    -- The application's triggers on it may need the path that the application has.
    perform set_config('search_path', two_tower.application_path(), true);
    delete from public.user_video_decisions d where d.user_id operator(pg_catalog.=) p_user_id;
    get diagnostics v_rows = row_count;
    perform pg_catalog.set_config('search_path', c_path, true);
    v_done := v_done || jsonb_build_object('decisions', v_rows);
    delete from two_tower.reviews r where r.reviewer_id = p_user_id;
    get diagnostics v_rows = row_count;
    v_done := v_done || jsonb_build_object('reviews', v_rows);
    perform from two_tower.impression_users u where u.user_id = p_user_id for update;
    delete from two_tower.impressions i where i.user_id = p_user_id;
    get diagnostics v_rows = row_count;
    v_done := v_done || jsonb_build_object('impressions', v_rows);
    delete from two_tower.impression_users u where u.user_id = p_user_id;
    -- Who chose no personal lists gets none by a profile that stays.
    delete from two_tower.user_choices c
    where c.user_id = p_user_id and (c.personalised or not exists (select from two_tower.profile_keys(p_user_id)));
    get diagnostics v_rows = row_count;
    v_done := v_done || jsonb_build_object('choices', v_rows);
    delete from two_tower.user_embeddings e where e.user_id = p_user_id;
    get diagnostics v_rows = row_count;
    v_done := v_done || jsonb_build_object('vectors', v_rows);
    v_done := v_done || jsonb_build_object('features', two_tower.store_user_features(array[p_user_id]));
    -- Of a profile that stays, what it says by itself.
    perform two_tower.write_user_vectors(
        array[p_user_id], array(select v.version from unnest(two_tower.live_versions()) as v (version) where two_tower.reads_profiles(v.version))
    );
    foreach v_table in array array['user_change_log', 'user_changes'] loop
        execute format('delete from two_tower.%I c where c.user_id = $1', v_table) using p_user_id;
    end loop;
    delete from two_tower.change_failures f where f.kind = 'user' and f.id = p_user_id;
    return v_done;
end
$func$;

comment on function two_tower.forget_user(uuid) is
'Removes all data about a user, with or without an account: decisions, reviews, features, vectors, what was shown, '
'choices, pending changes; '
'how many of each. The account stays; deleting it is the application''s task';
