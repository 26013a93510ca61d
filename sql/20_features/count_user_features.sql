-- What is counted of a user. A skip counts nowhere. Prices are summed as single-precision values in double
-- precision, in the order of the videos' ids. Names are compared byte by byte, whatever their columns' types and collations hold for equal.
-- Counts are put together as json: jsonb makes each number by way of its text, and is made of all of it in half the time.
create or replace function two_tower.count_user_features(p_user_ids uuid[]) returns setof two_tower.user_counts
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
-- Planned once in a connection: for a single user, planning takes twice as long as counting.
set plan_cache_mode = 'force_generic_plan'
as $func$
#variable_conflict use_column
begin
    return query
    with decided as materialized (
        select d.user_id, d.video_id, two_tower.decision_label(d.decision_type) = 1 as liked,
            coalesce(two_tower.time_of(d.created_at), 'infinity') as at,
            two_tower.text_of(v.maker) collate "C" as maker, two_tower.text_of(v.label) collate "C" as label,
            two_tower.text_of(v.series) collate "C" as series, two_tower.text_of(v.source) collate "C" as source, two_tower.price_of(v.price) as price
        from (select distinct u.user_id from unnest(two_tower.personalised(p_user_ids)) as u (user_id)) as u
        join public.user_video_decisions d on d.user_id = u.user_id
        join public.videos v on v.id = d.video_id
        where two_tower.decision_label(d.decision_type) <> -1
    ),
    tags as (
        select c.user_id, json_object_agg(c.key, c.n)::jsonb as counts
        from (
            select d.user_id, t.tag_id as key, count(*) as n
            from decided d join public.video_tags t on t.video_id = d.video_id
            where d.liked group by d.user_id, t.tag_id
        ) as c
        group by c.user_id
    ),
    performers as (
        select c.user_id, json_object_agg(c.key, c.n)::jsonb as counts
        from (
            select d.user_id, p.performer_id as key, count(*) as n
            from decided d join public.video_performers p on p.video_id = d.video_id
            where d.liked group by d.user_id, p.performer_id
        ) as c
        group by c.user_id
    ),
    makers as (
        select c.user_id, json_object_agg(c.key, c.n)::jsonb as counts
        from (
            select d.user_id, d.maker as key, count(*) as n from decided d where d.liked and d.maker <> '' group by d.user_id, d.maker
        ) as c
        group by c.user_id
    ),
    labels as (
        select c.user_id, json_object_agg(c.key, c.n)::jsonb as counts
        from (
            select d.user_id, d.label as key, count(*) as n from decided d where d.liked and d.label <> '' group by d.user_id, d.label
        ) as c
        group by c.user_id
    ),
    series as (
        select c.user_id, json_object_agg(c.key, c.n)::jsonb as counts
        from (
            select d.user_id, d.series as key, count(*) as n from decided d where d.liked and d.series <> '' group by d.user_id, d.series
        ) as c
        group by c.user_id
    ),
    sources as (
        select c.user_id, json_object_agg(c.key, c.n)::jsonb as counts
        from (
            select d.user_id, d.source as key, count(*) as n from decided d where d.liked and d.source <> '' group by d.user_id, d.source
        ) as c
        group by c.user_id
    ),
    totals as (
        select user_id,
            array_agg(video_id) filter (where liked) as liked_video_ids,
            array_agg(video_id) filter (where not liked) as noped_video_ids,
            count(*) filter (where liked) as like_count,
            count(*) filter (where not liked) as nope_count,
            sum(price order by video_id) filter (where liked and price > 0) as price_sum,
            count(*) filter (where liked and price > 0) as priced_count
        -- Sorted once for both lists.
        from (select user_id, video_id, liked, price from decided order by user_id, at desc, video_id) as d
        group by user_id
    )
    select t.user_id,
        coalesce(tags.counts, '{}'), coalesce(performers.counts, '{}'), coalesce(makers.counts, '{}'),
        coalesce(labels.counts, '{}'), coalesce(series.counts, '{}'), coalesce(sources.counts, '{}'),
        coalesce(t.liked_video_ids, '{}'), coalesce(t.noped_video_ids, '{}'),
        t.like_count::int, t.nope_count::int, coalesce(t.price_sum, 0), t.priced_count::int
    from totals t
    left join tags on tags.user_id = t.user_id
    left join performers on performers.user_id = t.user_id
    left join makers on makers.user_id = t.user_id
    left join labels on labels.user_id = t.user_id
    left join series on series.user_id = t.user_id
    left join sources on sources.user_id = t.user_id;
end
$func$;

comment on function two_tower.count_user_features(uuid[]) is
'Counts the likes and nopes of users by what the videos carry; no row for a user without either, or who chose '
'that no list be made of them';
