drop function if exists two_tower.own_reasons(uuid[]);
-- SECURITY DEFINER: it reads places and tastes, which clients may not; of the caller's own likes alone, or a user's for service_role, for videos that may be shown.
--
-- A score is a sum over what the user decided on, divided by one length: the like that adds most is the one for which the product of its
-- taste with the place, and its weight for the video as a neighbour, are largest together. The last entry of a place meets a zero.
create or replace function two_tower.own_reasons(p_video_ids uuid[], p_user_id uuid default null)
returns table (video_id uuid, because_video_id uuid)
language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
declare
    c_user_id constant uuid := two_tower.acting_user(p_user_id);
begin
    if cardinality(p_video_ids) > 200 then
        raise exception 'at most 200 videos can be asked for at once' using errcode = '22023';
    end if;
    if two_tower.personalised(array[c_user_id]) = '{}' then
        return;
    end if;
    return query
    with places as materialized (
        select e.video_id, extensions.subvector(e.embedding, 1, 127)::extensions.vector as place
        from two_tower.video_embeddings e
        where e.model_version = two_tower.active_version() and e.video_id = any (p_video_ids)
            and (select true from two_tower.visible_videos v where v.id = e.video_id)
    ),
    likes as materialized (
        select t.video_id, t.liked, d.weight, n.neighbour_ids, n.weights
        from two_tower.weighted_decisions(c_user_id, two_tower.recency_of(two_tower.active_version())) d
        join two_tower.video_tastes t on t.model_version = two_tower.active_version() and t.video_id = d.video_id
        left join two_tower.neighbour_lists n on n.model_version = two_tower.active_version() and n.video_id = d.video_id
        where d.liked and t.liked is not null
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
        -- One that takes away is no reason.
        where a.value > 0
        order by a.value desc, l.video_id limit 1
    ) as b;
end
$func$;

comment on function two_tower.own_reasons(uuid[], uuid) is
'Of each of these videos, the video the caller or user likes that adds most to its score; '
'no row where none adds, or where the towers are no sums';
