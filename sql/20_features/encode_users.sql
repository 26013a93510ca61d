-- The one encoder of the user tower: keys become positions by the version's vocabulary, counts stay as they are.
create or replace function two_tower.encode_users(p_counts two_tower.user_counts[], p_version text)
returns table (user_id uuid, input extensions.sparsevec)
language sql stable parallel safe security invoker set search_path = ''
as $func$
    select c.user_id, (
        select '{' || coalesce(string_agg(e.position || ':' || e.value, ','), '') || '}/' || m.user_dim
        from (
            select n.position, n.value::real::text as value
            from (values (1, c.like_count::double precision), (2, c.nope_count), (3, c.price_sum), (4, c.priced_count)) as n (position, value)
            where n.value <> 0
            union all
            select s."offset" + v.index + 1, k.value
            from (values
                ('liked_tags', c.liked_tags), ('liked_performers', c.liked_performers), ('liked_makers', c.liked_makers),
                ('liked_labels', c.liked_labels), ('liked_series', c.liked_series), ('liked_sources', c.liked_sources)
            ) as f (name, counts)
            join two_tower.model_segments s on s.model_version = m.version and s.tower = 'user' and s.name = f.name
            cross join lateral jsonb_each_text(f.counts) as k
            join two_tower.vocabularies v on v.model_version = m.version and v.vocabulary = s.vocabulary and v.key = k.key
            union all
            select s."offset" + v.index + 1, '1'
            from (values ('liked_video_ids', c.liked_video_ids), ('noped_video_ids', c.noped_video_ids)) as f (name, ids)
            join two_tower.model_segments s on s.model_version = m.version and s.tower = 'user' and s.name = f.name
            cross join lateral unnest(f.ids) as k (id)
            join two_tower.vocabularies v on v.model_version = m.version and v.vocabulary = s.vocabulary and v.key = k.id::text
        ) as e
    )::extensions.sparsevec
    from unnest(p_counts) as c
    cross join two_tower.model_versions m
    where m.version = p_version
$func$;

comment on function two_tower.encode_users(two_tower.user_counts[], text) is 'Raw user-tower inputs, one sparse vector of user_dim counts per user';
