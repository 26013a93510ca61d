-- No index matches its order, so every video is read.
create or replace function two_tower.exact_scores(
    p_version text, p_vector extensions.halfvec, p_limit int, p_excluded uuid[], p_liked uuid[], p_weights real[], p_length real
) returns real[]
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    with sums as materialized (
        select n.id, sum(n.weight::double precision * coalesce(l.weight, 1)) / p_length as part
        from unnest(p_liked, p_weights) as l (id, weight)
        join two_tower.neighbour_lists t on t.model_version = p_version and t.video_id = l.id
        cross join lateral unnest(t.neighbour_ids, t.weights) as n (id, weight)
        where p_length > 1e-12
        group by n.id
    )
    select coalesce(array_agg(b.score order by b.score desc), '{}')
    from (
        select (1 - (e.embedding OPERATOR(extensions.<=>) p_vector) + coalesce(s.part, 0))::real as score
        from two_tower.video_embeddings e
        join two_tower.visible_videos v on v.id = e.video_id
        left join sums s on s.id = e.video_id
        where e.model_version = p_version and e.placed and e.video_id not in (select unnest(p_excluded))
        order by score desc limit p_limit
    ) as b
$func$;

comment on function two_tower.exact_scores(text, extensions.halfvec, int, uuid[], uuid[], real[], real) is
'The best scores that nearest_videos() could give, from the score of every video';
