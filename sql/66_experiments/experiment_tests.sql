create or replace function two_tower.experiment_tests(p_experiment int) returns table (
    day date, rate text, difference double precision, low double precision, high double precision, p_value double precision
)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    with days as materialized (
        select d.* from two_tower.experiment_days(p_experiment) d
    )
    select b.day, r.rate, t.difference, t.low, t.high, min(t.p_value) over (partition by r.rate order by b.day)
    from two_tower.experiments e
    join days a on a.model_version = e.control
    join days b on b.model_version = e.challenger and b.day = a.day
    cross join lateral (values
        ('like', a.like_rate, a.like_variance, a.likes, b.like_rate, b.like_variance, b.likes),
        ('nope', a.nope_rate, a.nope_variance, a.nopes, b.nope_rate, b.nope_variance, b.nopes)
    ) as r (rate, rate_a, variance_a, hits_a, rate_b, variance_b, hits_b)
    cross join lateral two_tower.compare_rates(
        r.rate_a, r.variance_a, a.users, r.hits_a, r.rate_b, r.variance_b, b.users, r.hits_b
    ) t
    where e.id = p_experiment
    order by b.day, r.rate
$func$;

comment on function two_tower.experiment_tests(int) is
'By how much the challenger''s like and nope rates are above the control''s, from the start to the end of each day, with a confidence '
'sequence of 95 %, and the least p-value so far, which may be looked at daily: at 0.05 and below the difference is one';
