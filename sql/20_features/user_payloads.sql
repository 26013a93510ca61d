-- model_version is whose tower the payload is for: while an experiment runs, users have it from one of two.
--
-- Times are relative to the user's latest decision, never to the clock, so that a payload changes with its rows alone.
-- extra_float_digits: as encode_users.
--
-- Where decisions are weighed, by the version or by themselves, the towers read what is in "weighted", and everything else is as it is without
-- weights. What a decision says itself is in "weights", so that a client with a model of another exponent knows that plain counts will not do.
create or replace function two_tower.user_payloads(p_user_ids uuid[]) returns table (user_id uuid, features jsonb)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp set extra_float_digits = 1
as $func$
    with served as materialized (
        select u.user_id, two_tower.served_version(u.user_id) as version
        from (select distinct i.id as user_id from unnest(p_user_ids) as i (id)) as u
    ),
    recency as materialized (
        select s.version, array_agg(s.user_id) as user_ids, two_tower.recency_of(s.version) as exponent from served s group by s.version
    ),
    asked as (
        select s.user_id, s.version, r.exponent from served s join recency r on r.version is not distinct from s.version
    ),
    personal as materialized (
        select distinct u.user_id from unnest(two_tower.personalised(p_user_ids)) as u (user_id)
    ),
    weights as materialized (
        select a.user_id, jsonb_object_agg(g.video_id, g.weight) as given
        from personal a
        cross join lateral two_tower.given_decisions(a.user_id) g
        where g.label <> -1 and g.weight <> 1 and exists (select from public.videos v where v.id = g.video_id)
        group by a.user_id
    ),
    inputs as materialized (
        select i.*
        from recency r
        cross join lateral two_tower.user_inputs(
            case when r.exponent > 0 then array(select p.user_id from personal p where p.user_id = any (r.user_ids))
            else array(select w.user_id from weights w where w.user_id = any (r.user_ids)) end,
            r.exponent
        ) i
    ),
    weighted as (
        select i.user_id, jsonb_object_agg(i.name, i.value) as sums
        from (
            select c.user_id, c.segment as name, jsonb_object_agg(c.key, c.value::real) as value
            from inputs c where c.segment <> 'numeric' group by c.user_id, c.segment
            union all
            select c.user_id, c.key, to_jsonb(c.value::real) from inputs c where c.segment = 'numeric'
        ) as i
        group by i.user_id
    ),
    decided as (
        select d.user_id, two_tower.decision_label(d.decision_type) = 1 as liked, two_tower.decision_label(d.decision_type) = 0 as noped,
            two_tower.time_of(d.created_at) as created_at, two_tower.price_of(v.price) as price,
            max(two_tower.time_of(d.created_at)) over (partition by d.user_id) as latest
        from personal a
        join public.user_video_decisions d on d.user_id = a.user_id
        join public.videos v on v.id = d.video_id
    ),
    profiles as (
        select k.user_id, jsonb_object_agg(k.kind, k.keys) as keys
        from (
            select u.user_id, k.kind, jsonb_agg(k.key order by k.key collate "C") as keys
            from personal u cross join lateral two_tower.profile_keys(u.user_id) as k
            group by u.user_id, k.kind
        ) as k
        group by k.user_id
    ),
    timed as (
        select d.user_id,
            count(*) filter (where liked and created_at > latest - interval '30 days') as like_count_30d,
            count(*) filter (where (liked or noped) and created_at > latest - interval '30 days') as decision_count_30d,
            percentile_cont(0.5) within group (order by price) filter (where liked and price > 0) as price_median,
            extract(epoch from max(latest) - max(created_at) filter (where liked)) / 86400 as days_since_last_like,
            avg(extract(hour from created_at at time zone 'UTC')) filter (where liked) as hour_of_day_mean,
            max(latest) as latest
        from decided d group by d.user_id
    )
    select a.user_id, jsonb_build_object(
        'schema_version', 2,
        'model_version', a.version,
        'liked_tags', coalesce(c.liked_tags, '{}'),
        'liked_performers', coalesce(c.liked_performers, '{}'),
        'liked_makers', coalesce(c.liked_makers, '{}'),
        'liked_labels', coalesce(c.liked_labels, '{}'),
        'liked_series', coalesce(c.liked_series, '{}'),
        'liked_sources', coalesce(c.liked_sources, '{}'),
        'liked_video_ids', to_jsonb(coalesce(c.liked_video_ids, '{}')),
        'noped_video_ids', to_jsonb(coalesce(c.noped_video_ids, '{}')),
        'like_count', coalesce(c.like_count, 0),
        'nope_count', coalesce(c.nope_count, 0),
        'like_ratio', c.like_count::double precision / nullif(c.like_count + c.nope_count, 0),
        'like_count_30d', coalesce(t.like_count_30d, 0),
        'positive_ratio_30d', t.like_count_30d::double precision / nullif(t.decision_count_30d, 0),
        'price_sum', coalesce(c.price_sum, 0),
        'priced_count', coalesce(c.priced_count, 0),
        'price_mean', c.price_sum / nullif(c.priced_count, 0),
        'price_median', t.price_median,
        'days_since_last_like', t.days_since_last_like,
        'account_age_days', extract(epoch from t.latest - two_tower.time_of(p.created_at)) / 86400,
        'hour_of_day_mean', t.hour_of_day_mean
    )
    || case when a.exponent > 0 then jsonb_build_object('recency', a.exponent) else '{}' end
    || case when g.given is not null then jsonb_build_object('weights', g.given) else '{}' end
    || case when a.exponent > 0 or g.given is not null then jsonb_build_object('weighted', coalesce(w.sums, '{}')) else '{}' end
    || coalesce(f.keys, '{}')
    from asked a
    left join weighted w on w.user_id = a.user_id
    left join weights g on g.user_id = a.user_id
    left join two_tower.count_user_features(p_user_ids) c on c.user_id = a.user_id
    left join timed t on t.user_id = a.user_id
    left join two_tower.accounts() p on p.user_id = a.user_id
    left join profiles f on f.user_id = a.user_id
$func$;

comment on function two_tower.user_payloads(uuid[]) is
'The payload of get_user_embedding_features, for many users at once, weighted by each decision''s own weight and the version that serves '
'the user, which it names';
