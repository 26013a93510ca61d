drop function if exists two_tower.encode_videos(two_tower.video_counts[], text);
drop function if exists two_tower.encode_videos(uuid[], text);
-- The input of the item tower. A video outside the vocabulary has no id input: the tower places it by its content.
-- extra_float_digits: as encode_users.
create or replace function two_tower.encode_videos(p_video_ids uuid[], p_version text, p_by_content boolean default false)
returns table (video_id uuid, input extensions.sparsevec)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp set extra_float_digits = 1
as $func$
    with videos as materialized (
        select n.* from two_tower.video_numbers(p_video_ids) n
    ),
    keyed as (
        select v.video_id, a.kind, a.key from videos v cross join lateral two_tower.contents_of(v.video_id) as a
        union all
        select v.video_id, 'video', v.video_id::text from videos v where not p_by_content
    ),
    entries as (
        select k.video_id, i.position, 1::real as value
        from keyed k
        join two_tower.input_segments() s on s.tower = 'item' and s.kind = k.kind
        join two_tower.model_inputs i on i.model_version = p_version and i.tower = 'item' and i.segment = s.segment and i.key = k.key
        union all
        select v.video_id, i.place, n.value::real
        from videos v
        cross join lateral (values
            ('price', v.price), ('duration_seconds', v.duration_seconds::double precision), ('released_days', v.released_days)
        ) as n (name, value)
        join two_tower.input_numbers() i on i.tower = 'item' and i.name = n.name
        where n.value <> 0
        union all
        select c.video_id, i.position, n.value
        from (
            -- A vector of another length is another encoder's, whatever it is called. A name has no colon.
            select split_part(i.key, ':', 1) as encoder, count(*) as numbers
            from two_tower.model_inputs i
            where i.model_version = p_version and i.tower = 'item' and i.segment = 'content_vectors'
            group by 1
        ) as r
        cross join videos v
        join two_tower.content_vectors c on c.video_id = v.video_id and c.encoder = r.encoder and cardinality(c.vector) = r.numbers
        cross join lateral unnest(c.vector) with ordinality as n (value, at)
        join two_tower.model_inputs i on i.model_version = p_version and i.tower = 'item' and i.segment = 'content_vectors'
            and i.key = c.encoder || ':' || n.at
    )
    -- A video that carries nothing known still has an input, of zeros.
    select v.video_id, ('{' || coalesce(string_agg(e.position || ':' || e.value, ','), '') || '}/' || m.item_dim)::extensions.sparsevec
    from videos v
    left join entries e on e.video_id = v.video_id
    cross join two_tower.model_versions m
    where m.version = p_version
    group by v.video_id, m.item_dim
$func$;

comment on function two_tower.encode_videos(uuid[], text, boolean) is
'Raw item-tower inputs, one sparse vector of item_dim counts per video that exists; with p_by_content as if no video had been met before';
