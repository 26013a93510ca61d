-- Everything is a sum over decisions, each times its weight, but for what profiles have, which counts 1; count_user_features() comes to the same for weights of 1, in the columns of
-- user_features. A skip counts nowhere. Prices are summed as single-precision values in double precision, in the order of the videos' ids.
-- What a video carries is looked up once, however many users like it.
create or replace function two_tower.user_inputs(p_user_ids uuid[], p_recency double precision)
returns table (user_id uuid, segment text, key text, value double precision)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    with decided as materialized (
        select u.user_id, d.video_id, d.liked, d.weight::double precision as weight, two_tower.price_of(v.price) as price
        from (select distinct i.user_id from unnest(p_user_ids) as i (user_id)) as u
        cross join lateral two_tower.weighted_decisions(u.user_id, p_recency) d
        join public.videos v on v.id = d.video_id
    ),
    carried as materialized (
        select v.video_id, array_agg(s.segment || ' ' || a.key) as keys
        from (select distinct d.video_id from decided d where d.liked) as v
        cross join lateral two_tower.attributes_of(v.video_id) as a
        join two_tower.input_segments() s on s.tower = 'user' and s.kind = a.kind
        group by v.video_id
    )
    select c.user_id, split_part(c.key, ' ', 1), substr(c.key, strpos(c.key, ' ') + 1), c.value
    from (
        -- One text, which is counted faster than two.
        select k.user_id, k.key, sum(k.weight) as value
        from (
            select d.user_id, d.weight, unnest(c.keys) as key from decided d join carried c on c.video_id = d.video_id where d.liked
        ) as k
        group by k.user_id, k.key
    ) as c
    union all
    select d.user_id, case when d.liked then 'liked_video_ids' else 'noped_video_ids' end, d.video_id::text, d.weight
    from decided d
    union all
    select t.user_id, 'numeric', n.name, n.value
    from (
        select d.user_id,
            sum(d.weight) filter (where d.liked) as like_count,
            sum(d.weight) filter (where not d.liked) as nope_count,
            sum(d.price * d.weight order by d.video_id) filter (where d.liked and d.price > 0) as price_sum,
            sum(d.weight) filter (where d.liked and d.price > 0) as priced_count
        from decided d
        group by d.user_id
    ) as t
    cross join lateral (values
        ('like_count', t.like_count), ('nope_count', t.nope_count), ('price_sum', t.price_sum), ('priced_count', t.priced_count)
    ) as n (name, value)
    where n.value is not null
    union all
    select u.id, k.kind, k.key, 1
    from (select distinct i.id from unnest(p_user_ids) as i (id)) as u
    cross join lateral two_tower.profile_keys(u.id) as k
$func$;

comment on function two_tower.user_inputs(uuid[], double precision) is
'The user tower''s inputs: a row for each input that is not zero, with decisions weighted by a version''s exponent';
