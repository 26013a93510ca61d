create or replace function two_tower.shown_rates(p_days int default 30) returns table (
    model_version text, reason text, users bigint, shown bigint, likes bigint, nopes bigint,
    like_rate double precision, like_low double precision, like_high double precision, nope_rate double precision
)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    with by_user as (
        select o.model_version, o.reason, o.user_id, count(*)::float8 as shown,
            (count(*) filter (where o.label = 1))::float8 as likes, count(*) filter (where o.label = 0) as nopes
        from two_tower.shown_outcomes(now() - p_days * interval '1 day') o
        group by o.model_version, o.reason, o.user_id
    ),
    sums as (
        select u.model_version, u.reason, count(*) as users, sum(u.shown) as shown, sum(u.likes) as likes, sum(u.nopes)::bigint as nopes,
            two_tower.rate_variance(count(*), sum(u.shown), sum(u.likes), sum(u.shown ^ 2), sum(u.likes ^ 2), sum(u.shown * u.likes)) as variance
        from by_user u group by u.model_version, u.reason
    )
    select s.model_version, s.reason, s.users, s.shown::bigint, s.likes::bigint, s.nopes, s.likes / s.shown,
        r.low, r.high, s.nopes / s.shown
    from sums s
    cross join lateral two_tower.rate_interval(s.likes / s.shown, s.variance) r
    order by s.model_version, s.reason
$func$;

comment on function two_tower.shown_rates(int) is
'What was shown in the last days, first to each user, by version and reason: how many users saw how many videos, how many of these they '
'liked and noped afterwards, and the like rate with a confidence sequence of 95 %, null where too little is known';
