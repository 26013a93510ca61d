-- SECURITY DEFINER: service_role recomputes features and vectors, which nobody but the owner may write.
create or replace function two_tower.rebuild_batch(p_kind text, p_after uuid default null, p_limit int default 500) returns uuid
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_limit int := least(p_limit, two_tower.take_room(true));
    -- Nobody has this id. With "p_after is null or" a plan for any value would begin at the start of each index.
    v_after uuid := coalesce(p_after, '00000000-0000-0000-0000-000000000000');
    v_versions text[];
    v_ids uuid[];
begin
    perform two_tower.hold_versions('batch');
    v_versions := two_tower.live_versions() || two_tower.given_versions();
    -- Of each table the next few, since all of a table would be read for every batch.
    if p_kind = 'video' then
        v_ids := array(
            (select v.id from public.videos v where v.id > v_after order by v.id limit v_limit)
            union
            select k.id
            from unnest(v_versions) as v (version)
            cross join lateral (
                (
                    select e.video_id from two_tower.video_embeddings e
                    where e.model_version = v.version and e.video_id > v_after order by e.video_id limit v_limit
                )
                union all
                (
                    select t.video_id from two_tower.video_tastes t
                    where t.model_version = v.version and t.video_id > v_after order by t.video_id limit v_limit
                )
            ) as k (id)
            order by id limit v_limit
        );
        perform two_tower.lock_changes('video', v_ids);
        perform two_tower.refresh_videos(v_ids);
    else
        v_ids := array(
            (select distinct d.user_id from public.user_video_decisions d where d.user_id > v_after order by d.user_id limit v_limit)
            union
            (select f.user_id from two_tower.user_features f where f.user_id > v_after order by f.user_id limit v_limit)
            union
            select k.id
            from unnest(v_versions) as v (version)
            cross join lateral (
                (
                    select e.user_id from two_tower.user_embeddings e
                    where e.model_version = v.version and e.user_id > v_after order by e.user_id limit v_limit
                )
                union all
                select u.id from two_tower.users_by_profile(v.version, p_after, v_limit) as u (id)
            ) as k (id)
            order by user_id limit v_limit
        );
        perform two_tower.lock_changes('user', v_ids);
        perform two_tower.refresh_users(v_ids);
    end if;
    return v_ids[cardinality(v_ids)];
end
$func$;

comment on function two_tower.rebuild_batch(text, uuid, int) is
'Recomputes the next videos or users after p_after, whether or not their input has changed; the last id, or null at the end';
