-- SECURITY DEFINER: service_role compares what nobody but the owner may compute, and nobody but the owner writes the job log.
--
-- Drawn anew at each run, so that what no trigger saw is found within days, however much there is. What differs is said in
-- two_tower.problems until somebody has compared everything.
create or replace function two_tower.verify_sample(p_count int default 300) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_users record;
    v_videos record;
begin
    select b.* into v_users from two_tower.verify_batch('user', p_ids => array(
        select k.id
        from (
            select l from two_tower.liking_users() as l
            union select f.user_id from two_tower.user_features f
            union select u.id from unnest(two_tower.live_versions()) as v (version) cross join lateral two_tower.users_by_profile(v.version) as u (id)
        ) as k (id)
        order by random() limit p_count
    )) b;
    select b.* into v_videos from two_tower.verify_batch('video', p_ids => array(
        select v.id from public.videos v order by random() limit p_count
    )) b;
    return two_tower.log_verified(jsonb_build_object(
        'users', v_users.seen, 'videos', v_videos.seen, 'whole', false, 'marked', 0,
        'differing', jsonb_build_object(
            'features', cardinality(v_users.features), 'user_vectors', cardinality(v_users.vectors),
            'video_vectors', cardinality(v_videos.vectors), 'tastes', cardinality(v_videos.tastes)
        )
    ));
end
$func$;

comment on function two_tower.verify_sample(int) is
'Compares stored values of a random sample of p_count users and p_count videos with their rows; counts, also in the job log';
