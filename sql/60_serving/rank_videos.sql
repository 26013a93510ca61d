drop function if exists two_tower.rank_videos(uuid, int, uuid[], real);
drop function if exists two_tower.rank_videos(uuid, int, two_tower.video_filter, real, uuid[]);
create or replace function two_tower.rank_videos(
    p_user_id uuid, p_limit int, p_filter two_tower.video_filter default null, p_diversity real default 0, p_excluded uuid[] default '{}',
    p_version text default null
) returns table (video_id uuid, score real, rank int, reason text)
language plpgsql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
declare
    v_version text := coalesce(p_version, two_tower.served_version(p_user_id));
    v_history record := two_tower.history_of(p_user_id, v_version);
    v_vector extensions.halfvec;
    v_length real;
begin
    if exists (select from two_tower.user_choices c where c.user_id = p_user_id and not c.personalised) then
        -- The list is everybody's, but for what the user has decided on.
        v_history.liked := '{}';
    else
        select u.embedding, u.length into v_vector, v_length from two_tower.vector_of(p_user_id, v_version) u;
    end if;
    return query
    select r.*
    from two_tower.rank_by_vector(
        v_version, v_vector, 'taste', p_limit, v_history.decided || p_excluded, p_filter, p_diversity, v_history.liked, v_history.weights,
        v_length
    ) r;
end
$func$;

comment on function two_tower.rank_videos(uuid, int, two_tower.video_filter, real, uuid[], text) is
'The best visible videos for a user that the user has not decided on, without the excluded, with the reason of each: taste, popular or '
'newest; by the version that serves the user, unless another is given';
