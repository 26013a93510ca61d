-- What the input of the user tower is, by definition; compute_users() makes the same for refreshes. Keys become
-- positions by the version's vocabulary, counts stay as they are. Set-based: one hash of the vocabulary serves all users of a batch.
-- extra_float_digits: an input must not depend on how the session likes its numbers printed.
create or replace function two_tower.encode_users(p_counts two_tower.user_counts[], p_version text)
returns table (user_id uuid, input extensions.sparsevec)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp set extra_float_digits = 1
as $func$
    with counts as materialized (
        select c.* from unnest(p_counts) as c
    ),
    keyed as (
        select c.user_id, f.segment, k.key, k.value
        from counts c
        cross join lateral (values
            ('liked_tags', c.liked_tags), ('liked_performers', c.liked_performers), ('liked_makers', c.liked_makers),
            ('liked_labels', c.liked_labels), ('liked_series', c.liked_series), ('liked_sources', c.liked_sources)
        ) as f (segment, counts)
        cross join lateral jsonb_each_text(f.counts) as k
        union all
        select c.user_id, f.segment, k.id::text, '1'
        from counts c
        cross join lateral (values ('liked_video_ids', c.liked_video_ids), ('noped_video_ids', c.noped_video_ids)) as f (segment, ids)
        cross join lateral unnest(f.ids) as k (id)
    ),
    entries as (
        select k.user_id, i.position, k.value
        from keyed k
        join two_tower.model_inputs i
            on i.model_version = p_version and i.tower = 'user' and i.segment = k.segment and i.key = k.key
        union all
        select c.user_id, n.position, n.value::real::text
        from counts c
        cross join lateral (values
            (1, c.like_count::double precision), (2, c.nope_count), (3, c.price_sum), (4, c.priced_count)
        ) as n (position, value)
        where n.value <> 0
    )
    select e.user_id, ('{' || string_agg(e.position || ':' || e.value, ',') || '}/' || m.user_dim)::extensions.sparsevec
    from entries e cross join two_tower.model_versions m
    where m.version = p_version
    group by e.user_id, m.user_dim
$func$;

comment on function two_tower.encode_users(two_tower.user_counts[], text) is
'Raw user-tower inputs, one sparse vector of user_dim counts per user';
