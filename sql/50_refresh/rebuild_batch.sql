-- SECURITY DEFINER: service_role recomputes features and vectors, which nobody but the owner may write.
create or replace function two_tower.rebuild_batch(p_kind text, p_after uuid default null, p_limit int default 500) returns uuid
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_limit int := least(p_limit, two_tower.take_room(true));
    v_ids uuid[];
begin
    perform two_tower.hold_versions('batch');
    if p_kind = 'video' then
        v_ids := array(
            select k.id
            from (
                select v.id from public.videos v
                union select e.video_id from two_tower.video_embeddings e
                union select t.video_id from two_tower.video_tastes t
            ) as k (id)
            where p_after is null or k.id > p_after order by k.id limit v_limit
        );
        perform two_tower.lock_changes('video', v_ids);
        perform two_tower.refresh_videos(v_ids);
    else
        v_ids := array(
            select k.id
            from (
                select d.user_id from public.user_video_decisions d
                union select f.user_id from two_tower.user_features f
                union select e.user_id from two_tower.user_embeddings e
                union select u.id from unnest(two_tower.live_versions()) as v (version) cross join lateral two_tower.users_by_profile(v.version, p_after, v_limit) as u (id)
            ) as k (id)
            where p_after is null or k.id > p_after order by k.id limit v_limit
        );
        perform two_tower.lock_changes('user', v_ids);
        perform two_tower.refresh_users(v_ids);
    end if;
    return v_ids[cardinality(v_ids)];
end
$func$;

comment on function two_tower.rebuild_batch(text, uuid, int) is
'Recomputes the next videos or users after p_after, whether or not their input has changed; the last id, or null at the end';
