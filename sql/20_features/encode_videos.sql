-- The input of the item tower. A video outside the vocabulary has no id input: the tower places it by its content.
-- extra_float_digits: as encode_users.
create or replace function two_tower.encode_videos(p_counts two_tower.video_counts[], p_version text)
returns table (video_id uuid, input extensions.sparsevec)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp set extra_float_digits = 1
as $func$
    with counts as materialized (
        select c.* from unnest(p_counts) as c
    ),
    keyed as (
        select c.video_id, f.segment, k.key
        from counts c
        cross join lateral (values
            ('tags', c.tags::text[]), ('performers', c.performers::text[]), ('maker', array[c.maker]), ('label', array[c.label]),
            ('series', array[c.series]), ('source', array[c.source]), ('id', array[c.video_id::text])
        ) as f (segment, keys)
        cross join lateral unnest(f.keys) as k (key)
    ),
    entries as (
        select k.video_id, i.position, '1' as value
        from keyed k
        join two_tower.model_inputs i
            on i.model_version = p_version and i.tower = 'item' and i.segment = k.segment and i.key = k.key
        union all
        select c.video_id, n.position, n.value::real::text
        from counts c
        cross join lateral (values (1, c.price), (2, c.duration_seconds::double precision), (3, c.released_days)) as n (position, value)
        where n.value <> 0
    )
    -- A video that carries nothing known still has an input, of zeros.
    select c.video_id, ('{' || coalesce(string_agg(e.position || ':' || e.value, ','), '') || '}/' || m.item_dim)::extensions.sparsevec
    from counts c
    left join entries e on e.video_id = c.video_id
    cross join two_tower.model_versions m
    where m.version = p_version
    group by c.video_id, m.item_dim
$func$;

comment on function two_tower.encode_videos(two_tower.video_counts[], text) is
'Raw item-tower inputs, one sparse vector of item_dim counts per video';
