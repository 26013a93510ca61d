drop function if exists two_tower.rank_videos(uuid, int, uuid[], text);

-- The ladder that every list comes down: nearest to the stored vector, or to one computed on the spot for a user whose likes no
-- refresh has seen yet; then popular; then newest. Each rung fills what the ones above left open.
create or replace function two_tower.rank_videos(
    p_user_id uuid, p_limit int, p_tag_ids uuid[] default null, p_diversity real default 0
) returns table (video_id uuid, score real, rank int, reason text)
language plpgsql stable parallel unsafe security invoker set search_path = ''
as $func$
declare
    v_version text := two_tower.active_version();
    v_excluded uuid[] := array(select d.video_id from public.user_video_decisions d where d.user_id = p_user_id);
    v_vector extensions.halfvec;
    v_ids uuid[] := '{}';
    v_scores real[] := '{}';
    v_taste int := 0;
begin
    if v_version is not null then
        select e.embedding into v_vector from two_tower.user_embeddings e where e.model_version = v_version and e.user_id = p_user_id;
        if v_vector is null and v_excluded <> '{}' then
            begin
                select e.embedding into v_vector from two_tower.embed_users(array[p_user_id], v_version) e;
            exception
                -- Without its library the engine cannot answer; the list is popular then, and two-tower doctor says why.
                when system_error then v_vector := null;
            end;
        end if;
    end if;
    if v_vector is not null then
        select n.ids, n.scores into v_ids, v_scores
        from two_tower.nearest_list(v_version, v_vector, p_limit, v_excluded, p_tag_ids, p_diversity) n;
        v_taste := cardinality(v_ids);
    end if;
    return query
    select n.id, n.score, n.position::int, 'taste'
    from unnest(v_ids, v_scores) with ordinality as n (id, score, position);
    if v_taste < p_limit then
        return query
        select p.video_id, p.score, v_taste + p.position::int,
            -- Before any model is active, all that is known is popularity.
            case when v_version is null then 'popular' else p.reason end
        from rows from (two_tower.popular_videos(p_limit - v_taste, v_excluded || v_ids, p_tag_ids))
            with ordinality as p (video_id, score, reason, position);
    end if;
end
$func$;

comment on function two_tower.rank_videos(uuid, int, uuid[], real) is
'The best published videos for a user that the user has not decided on, with the reason of each: taste, popular or newest';
