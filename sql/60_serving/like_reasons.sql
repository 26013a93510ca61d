-- A score is a sum over what was decided on, divided by one length: the like that adds most is the one for which the product of its
-- taste with the place, and its weight for the video as a neighbour, are largest together. The last entry of a place meets a zero.
create or replace function two_tower.like_reasons(
    p_version text, p_video_ids uuid[], p_liked uuid[], p_weights real[], p_few uuid[]
)
returns table (video_id uuid, because_video_id uuid)
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
begin
    return query
    with places as materialized (
        select e.video_id, extensions.subvector(e.embedding, 1, 127)::extensions.vector as place
        from two_tower.video_embeddings e
        where e.model_version = p_version and e.video_id = any (p_video_ids)
            and (select true from two_tower.visible_videos v where v.id = e.video_id)
    ),
    likes as materialized (
        select t.video_id, t.liked, coalesce(d.weight, 1) as weight, n.neighbour_ids, n.weights
        from unnest(p_liked, p_weights) as d (video_id, weight)
        join two_tower.video_tastes t on t.model_version = p_version and t.video_id = d.video_id
        left join two_tower.neighbour_lists n on n.model_version = p_version and n.video_id = d.video_id
        where t.liked is not null
        union all
        select t.video_id, t.liked, 1, null, null
        from two_tower.compute_tastes(p_few, p_version, true) t
        where p_few <> '{}' and t.liked is not null
    )
    select p.video_id, b.video_id
    from places p
    cross join lateral (
        select l.video_id
        from likes l
        cross join lateral (
            -- <#> is the inner product, less than zero.
            select l.weight
                * (coalesce(l.weights[array_position(l.neighbour_ids, p.video_id)], 0) - (l.liked OPERATOR(extensions.<#>) p.place)) as value
        ) as a
        -- A like that lowers the score is not a reason.
        where a.value > 0
        order by a.value desc, l.video_id limit 1
    ) as b;
end
$func$;

comment on function two_tower.like_reasons(text, uuid[], uuid[], real[], uuid[]) is
'For each of these videos, the like that adds most to its score, of p_liked with their weights (null: 1) and of p_few, of which only the '
'content counts; no row if none adds, or if the towers are not sums';
