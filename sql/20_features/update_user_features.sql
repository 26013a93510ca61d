-- SECURITY DEFINER: users may not write user_features, which are counts of their decisions and nothing else.
create or replace function public.update_user_features(p_user_id uuid) returns two_tower.user_features
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_row two_tower.user_features;
begin
    perform two_tower.require_primary('update_user_features()');
    perform two_tower.require_self(p_user_id);
    if not exists (select from auth.users u where u.id = p_user_id) then
        raise exception 'there is no user %', p_user_id using errcode = 'P0002';
    end if;
    perform two_tower.lock_changes('user', array[p_user_id]);
    perform two_tower.store_user_features(array[p_user_id]);
    -- As embed_user().
    if current_setting('transaction_isolation') <> 'read committed' then
        insert into two_tower.user_changes (user_id) values (p_user_id);
    end if;
    select * into v_row from two_tower.user_features f where f.user_id = p_user_id;
    if not found then
        -- Nothing is stored of a user without likes and nopes; the answer is a row of zeros all the same.
        v_row.user_id := p_user_id;
        v_row.liked_tags := '{}';
        v_row.liked_performers := '{}';
        v_row.liked_makers := '{}';
        v_row.liked_labels := '{}';
        v_row.liked_series := '{}';
        v_row.liked_sources := '{}';
        v_row.liked_video_ids := '{}';
        v_row.noped_video_ids := '{}';
        v_row.like_count := 0;
        v_row.nope_count := 0;
        v_row.price_sum := 0;
        v_row.priced_count := 0;
        v_row.updated_at := now();
    end if;
    return v_row;
end
$func$;

comment on function public.update_user_features(uuid) is
'Recounts a user''s features, stores and returns them; for oneself, or for anyone as service_role';
