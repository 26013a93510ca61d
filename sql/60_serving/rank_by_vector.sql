drop function if exists two_tower.rank_by_vector(text, extensions.halfvec, text, int, uuid[], uuid[], real, uuid[], real[], real);
drop function if exists two_tower.rank_by_vector(text, extensions.halfvec, text, int, uuid[], uuid[], real);
drop function if exists two_tower.rank_by_vector(
    text, extensions.halfvec, text, int, uuid[], two_tower.video_filter, real, uuid[], real[], real
);
-- The stages of every list: best for a vector, if there is one; then popular; then newest. Each stage fills the places that the
-- ones before left open.
create or replace function two_tower.rank_by_vector(
    p_version text, p_vector extensions.halfvec, p_reason text, p_limit int, p_excluded uuid[], p_filter two_tower.video_filter,
    p_diversity real, p_liked uuid[] default '{}', p_weights real[] default null, p_length real default null,
    p_least_likers int default 1
) returns table (video_id uuid, score real, rank int, reason text)
language plpgsql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
declare
    v_ids uuid[] := '{}';
    v_scores real[];
begin
    if p_vector is not null then
        select n.ids, n.scores, n.among into v_ids, v_scores, p_filter.among
        from two_tower.nearest_videos(p_version, p_vector, p_limit, p_excluded, p_filter, p_diversity, p_liked, p_weights, p_length) n;
        return query select n.id, n.score, n.position::int, p_reason from unnest(v_ids, v_scores) with ordinality as n (id, score, position);
    end if;
    if cardinality(v_ids) < p_limit then
        return query
        -- Not the popularity itself: for a video that one person has liked, it would tell when.
        select p.video_id, (1.0 / (cardinality(v_ids) + p.position))::real, cardinality(v_ids) + p.position::int,
            -- Before any model is active, all that is known is popularity.
            case when p_version is null then 'popular' else p.reason end
        from rows from (two_tower.popular_videos(p_limit - cardinality(v_ids), p_excluded || v_ids, p_filter, p_least_likers))
            with ordinality as p (video_id, score, reason, position);
    end if;
end
$func$;

comment on function two_tower.rank_by_vector(
    text, extensions.halfvec, text, int, uuid[], two_tower.video_filter, real, uuid[], real[], real, int
) is
'The visible videos that score best for a vector and likes, by nearest_videos(), with p_reason; if there are too few, or no vector, '
'popular ones, which at least so many people like, and newest ones, whose score is the inverse of their rank';
