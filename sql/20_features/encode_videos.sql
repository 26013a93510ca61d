-- The one encoder of the item tower. A video outside the vocabulary has no id input: the tower places it by its content.
create or replace function two_tower.encode_videos(p_counts two_tower.video_counts[], p_version text)
returns table (video_id uuid, input extensions.sparsevec)
language sql stable parallel safe security invoker set search_path = ''
as $func$
    select c.video_id, (
        select '{' || coalesce(string_agg(e.position || ':' || e.value, ','), '') || '}/' || m.item_dim
        from (
            select n.position, n.value::real::text as value
            from (values (1, c.price), (2, c.duration_seconds::double precision), (3, c.released_days)) as n (position, value)
            where n.value <> 0
            union all
            select s."offset" + v.index + 1, '1'
            from (values
                ('tags', c.tags::text[]), ('performers', c.performers::text[]), ('maker', array[c.maker]), ('label', array[c.label]),
                ('series', array[c.series]), ('source', array[c.source]), ('id', array[c.video_id::text])
            ) as f (name, keys)
            join two_tower.model_segments s on s.model_version = m.version and s.tower = 'item' and s.name = f.name
            cross join lateral unnest(f.keys) as k (key)
            join two_tower.vocabularies v on v.model_version = m.version and v.vocabulary = s.vocabulary and v.key = k.key
        ) as e
    )::extensions.sparsevec
    from unnest(p_counts) as c
    cross join two_tower.model_versions m
    where m.version = p_version
$func$;

comment on function two_tower.encode_videos(two_tower.video_counts[], text) is 'Raw item-tower inputs, one sparse vector of item_dim counts per video';
