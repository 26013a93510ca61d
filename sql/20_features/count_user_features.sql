-- The one place that counts a user's history. A skip counts nowhere. Prices are summed as single-precision values in double
-- precision, which is exact for any plausible history, so that the order of rows cannot show in the result.
create or replace function two_tower.count_user_features(p_user_ids uuid[]) returns setof two_tower.user_counts
language sql stable parallel safe security invoker set search_path = ''
as $func$
    with decided as materialized (
        select d.user_id, d.video_id, d.decision_type = 'like' as liked, d.created_at,
            v.maker, v.label, v.series, v.source, v.price::real::double precision as price
        from (select distinct u.user_id from unnest(p_user_ids) as u (user_id)) as u
        join public.user_video_decisions d on d.user_id = u.user_id
        join public.videos v on v.id = d.video_id
        where d.decision_type in ('like', 'nope')
    ),
    named as (
        select 'tag' as vocabulary, d.user_id, t.tag_id::text as key
        from decided d join public.video_tags t on t.video_id = d.video_id where d.liked
        union all
        select 'performer', d.user_id, p.performer_id::text
        from decided d join public.video_performers p on p.video_id = d.video_id where d.liked
        union all
        select c.vocabulary, d.user_id, c.key
        from decided d
        cross join lateral (values ('maker', d.maker), ('label', d.label), ('series', d.series), ('source', d.source)) as c (vocabulary, key)
        where d.liked and c.key <> ''
    ),
    counted as (
        select user_id, vocabulary, key, count(*) as n from named group by user_id, vocabulary, key
    ),
    objects as (
        select user_id,
            jsonb_object_agg(key, n) filter (where vocabulary = 'tag') as liked_tags,
            jsonb_object_agg(key, n) filter (where vocabulary = 'performer') as liked_performers,
            jsonb_object_agg(key, n) filter (where vocabulary = 'maker') as liked_makers,
            jsonb_object_agg(key, n) filter (where vocabulary = 'label') as liked_labels,
            jsonb_object_agg(key, n) filter (where vocabulary = 'series') as liked_series,
            jsonb_object_agg(key, n) filter (where vocabulary = 'source') as liked_sources
        from counted group by user_id
    ),
    totals as (
        select user_id,
            array_agg(video_id order by created_at desc, video_id) filter (where liked) as liked_video_ids,
            array_agg(video_id order by created_at desc, video_id) filter (where not liked) as noped_video_ids,
            count(*) filter (where liked) as like_count,
            count(*) filter (where not liked) as nope_count,
            sum(price) filter (where liked and price > 0) as price_sum,
            count(*) filter (where liked and price > 0) as priced_count
        from decided group by user_id
    )
    select t.user_id,
        coalesce(o.liked_tags, '{}'), coalesce(o.liked_performers, '{}'), coalesce(o.liked_makers, '{}'),
        coalesce(o.liked_labels, '{}'), coalesce(o.liked_series, '{}'), coalesce(o.liked_sources, '{}'),
        coalesce(t.liked_video_ids, '{}'), coalesce(t.noped_video_ids, '{}'),
        t.like_count::int, t.nope_count::int, coalesce(t.price_sum, 0), t.priced_count::int
    from totals t left join objects o on o.user_id = t.user_id
$func$;

comment on function two_tower.count_user_features(uuid[]) is
'Counts the likes and nopes of users by what the videos carry; no row for a user without either';
