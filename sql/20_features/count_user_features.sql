-- What is counted of a user. A skip counts nowhere. Prices are summed as single-precision values in double precision, in the order of the
-- videos' ids. Names are compared byte by byte, whatever their columns' types and collations hold for equal. Counts are put together as json:
-- jsonb makes each number by way of its text, and is made of all of it in half the time.
--
-- A body of text without a set clause, which the planner puts in place of the call, so that it knows of how many users.
create or replace function two_tower.count_decisions(p_user_ids uuid[]) returns setof two_tower.user_counts
language sql stable parallel safe security invoker
as $func$
    with decided as materialized (
        select d.user_id, d.video_id, two_tower.decision_label(d.decision_type) operator(pg_catalog.=) 1 as liked,
            coalesce(two_tower.time_of(d.created_at), 'infinity'::pg_catalog.timestamptz) as at,
            two_tower.text_of(v.maker) collate pg_catalog."C" as maker, two_tower.text_of(v.label) collate pg_catalog."C" as label,
            two_tower.text_of(v.series) collate pg_catalog."C" as series,
            two_tower.text_of(v.source) collate pg_catalog."C" as source, two_tower.price_of(v.price) as price
        from (select distinct u.user_id from pg_catalog.unnest(p_user_ids) as u (user_id)) as u
        join public.user_video_decisions d on d.user_id operator(pg_catalog.=) u.user_id
        join public.videos v on v.id operator(pg_catalog.=) d.video_id
        where two_tower.decision_label(d.decision_type) operator(pg_catalog.<>) -1
    ),
    tags as (
        select c.user_id, pg_catalog.json_object_agg(c.key, c.n)::pg_catalog.jsonb as counts
        from (
            select d.user_id, t.tag_id as key, pg_catalog.count(*) as n
            from decided d join public.video_tags t on t.video_id operator(pg_catalog.=) d.video_id
            where d.liked group by d.user_id, t.tag_id
        ) as c
        group by c.user_id
    ),
    performers as (
        select c.user_id, pg_catalog.json_object_agg(c.key, c.n)::pg_catalog.jsonb as counts
        from (
            select d.user_id, p.performer_id as key, pg_catalog.count(*) as n
            from decided d join public.video_performers p on p.video_id operator(pg_catalog.=) d.video_id
            where d.liked group by d.user_id, p.performer_id
        ) as c
        group by c.user_id
    ),
    makers as (
        select c.user_id, pg_catalog.json_object_agg(c.key, c.n)::pg_catalog.jsonb as counts
        from (
            select d.user_id, d.maker as key, pg_catalog.count(*) as n
            from decided d where d.liked and d.maker operator(pg_catalog.<>) '' group by d.user_id, d.maker
        ) as c
        group by c.user_id
    ),
    labels as (
        select c.user_id, pg_catalog.json_object_agg(c.key, c.n)::pg_catalog.jsonb as counts
        from (
            select d.user_id, d.label as key, pg_catalog.count(*) as n
            from decided d where d.liked and d.label operator(pg_catalog.<>) '' group by d.user_id, d.label
        ) as c
        group by c.user_id
    ),
    series as (
        select c.user_id, pg_catalog.json_object_agg(c.key, c.n)::pg_catalog.jsonb as counts
        from (
            select d.user_id, d.series as key, pg_catalog.count(*) as n
            from decided d where d.liked and d.series operator(pg_catalog.<>) '' group by d.user_id, d.series
        ) as c
        group by c.user_id
    ),
    sources as (
        select c.user_id, pg_catalog.json_object_agg(c.key, c.n)::pg_catalog.jsonb as counts
        from (
            select d.user_id, d.source as key, pg_catalog.count(*) as n
            from decided d where d.liked and d.source operator(pg_catalog.<>) '' group by d.user_id, d.source
        ) as c
        group by c.user_id
    ),
    totals as (
        select user_id,
            pg_catalog.array_agg(video_id) filter (where liked) as liked_video_ids,
            pg_catalog.array_agg(video_id) filter (where not liked) as noped_video_ids,
            pg_catalog.count(*) filter (where liked) as like_count,
            pg_catalog.count(*) filter (where not liked) as nope_count,
            pg_catalog.sum(price order by video_id) filter (where liked and price operator(pg_catalog.>) 0) as price_sum,
            pg_catalog.count(*) filter (where liked and price operator(pg_catalog.>) 0) as priced_count
        -- Sorted once for both lists.
        from (select user_id, video_id, liked, price from decided order by user_id, at desc, video_id) as d
        group by user_id
    )
    select t.user_id,
        coalesce(tags.counts, '{}'), coalesce(performers.counts, '{}'), coalesce(makers.counts, '{}'),
        coalesce(labels.counts, '{}'), coalesce(series.counts, '{}'), coalesce(sources.counts, '{}'),
        coalesce(t.liked_video_ids, '{}'), coalesce(t.noped_video_ids, '{}'),
        t.like_count::pg_catalog.int4, t.nope_count::pg_catalog.int4, coalesce(t.price_sum, 0), t.priced_count::pg_catalog.int4
    from totals t
    left join tags on tags.user_id operator(pg_catalog.=) t.user_id
    left join performers on performers.user_id operator(pg_catalog.=) t.user_id
    left join makers on makers.user_id operator(pg_catalog.=) t.user_id
    left join labels on labels.user_id operator(pg_catalog.=) t.user_id
    left join series on series.user_id operator(pg_catalog.=) t.user_id
    left join sources on sources.user_id operator(pg_catalog.=) t.user_id
$func$;

create or replace function two_tower.count_user_features(p_user_ids uuid[]) returns setof two_tower.user_counts
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
-- Planned once in a connection: for a single user, planning takes twice as long as counting.
set plan_cache_mode = 'force_generic_plan'
as $func$
declare
    c_user_ids constant uuid[] := two_tower.personalised(p_user_ids);
begin
    -- A plan for any number of users reads the whole catalogue, which is more than one has seen of it.
    if cardinality(c_user_ids) = 1 then
        return query select c.* from two_tower.count_decisions(array[c_user_ids[1]]) c;
    else
        return query select c.* from two_tower.count_decisions(c_user_ids) c;
    end if;
end
$func$;

comment on function two_tower.count_decisions(uuid[]) is 'count_user_features() of those users who may be counted';
comment on function two_tower.count_user_features(uuid[]) is
'Counts the likes and nopes of users by the videos'' attributes; no row for a user without either, or who opted '
'out of personal lists';
