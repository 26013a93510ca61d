-- What a like and a nope of a video add to a user: the rows of the user tower at the positions that encode_users() fills for somebody
-- who has decided on this one video. Prices have a value, everything else counts one.
create or replace function two_tower.compute_tastes(p_video_ids uuid[], p_version text)
returns table (video_id uuid, liked extensions.vector, noped extensions.vector)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    with counts as materialized (
        select c.* from two_tower.count_video_features(p_video_ids) c
    ),
    keyed as (
        select c.video_id, k.segment, k.key
        from counts c
        cross join lateral (
            select 'liked_tags' as segment, t.id::text as key from unnest(c.tags) as t (id)
            union all
            select 'liked_performers', p.id::text from unnest(c.performers) as p (id)
            union all
            select n.segment, n.key
            from (values
                ('liked_makers', c.maker), ('liked_labels', c.label), ('liked_series', c.series), ('liked_sources', c.source),
                ('liked_video_ids', c.video_id::text), ('noped_video_ids', c.video_id::text)
            ) as n (segment, key)
            where n.key is not null
        ) as k
    ),
    entries as (
        select k.video_id, k.segment = 'noped_video_ids' as noped, i.position, 1::real as value
        from keyed k
        join two_tower.model_inputs i on i.model_version = p_version and i.tower = 'user' and i.segment = k.segment and i.key = k.key
        union all
        select c.video_id, n.noped, n.position, n.value
        from counts c
        cross join lateral (values
            (false, 1, 1::real), (true, 2, 1::real), (false, 3, c.price::real), (false, 4, case when c.price > 0 then 1::real end)
        ) as n (noped, position, value)
        where n.value > 0
    )
    select c.video_id,
        extensions.sum(two_tower.times(w.weight, e.value) order by e.position) filter (where not e.noped),
        extensions.sum(two_tower.times(w.weight, e.value) order by e.position) filter (where e.noped)
    from counts c
    left join (
        entries e
        join two_tower.model_weights w
            on w.model_version = p_version and w.tower = 'user' and w.part = 'row' and w.position = e.position
    ) on e.video_id = c.video_id
    group by c.video_id
$func$;

comment on function two_tower.compute_tastes(uuid[], text) is
'What a like and a nope of each of these videos adds to a user, from the rows as they are; null where that is nothing, and no row for a '
'video that does not exist';
