-- What a look at the end of each day saw: a like counts from the day on which it was given. Sums of squares over users change, with a day of one
-- user, by the difference of that user's square, so each event is read once.
--
-- Whatever a user was shown counts as a thousand videos at most, or one account that logs many and likes them would decide an experiment with
-- few others.
create or replace function two_tower.experiment_days(p_experiment int) returns table (
    day date, model_version text, users bigint, shown bigint, likes bigint, nopes bigint,
    like_rate double precision, like_low double precision, like_high double precision, like_variance double precision,
    nope_rate double precision, nope_low double precision, nope_high double precision, nope_variance double precision
)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    with outcomes as materialized (
        select o.*
        from two_tower.experiments e
        cross join lateral two_tower.shown_outcomes(e.started_at, coalesce(e.stopped_at, 'infinity'), e.id) o
        where e.id = p_experiment
    ),
    events as (
        select o.model_version, o.user_id, (o.shown_at at time zone 'UTC')::date as day, 1 as shown, 0 as likes, 0 as nopes from outcomes o
        union all
        select o.model_version, o.user_id, (o.decided_at at time zone 'UTC')::date, 0, (o.label = 1)::int, (o.label = 0)::int
        from outcomes o where o.label in (0, 1)
    ),
    user_days as (
        select e.model_version, e.user_id, e.day,
            sum(e.shown)::float8 as shown, sum(e.likes)::float8 as likes, sum(e.nopes)::float8 as nopes
        from events e group by e.model_version, e.user_id, e.day
    ),
    so_far as (
        select u.model_version, u.day, u.shown, u.likes, u.nopes, row_number() over w = 1 as is_first,
            sum(u.shown) over w as all_shown, sum(u.likes) over w as all_likes, sum(u.nopes) over w as all_nopes
        from user_days u window w as (partition by u.model_version, u.user_id order by u.day)
    ),
    counted as (
        select s.model_version, s.day, s.is_first,
            s.all_shown * now.share as shown, s.all_likes * now.share as likes, s.all_nopes * now.share as nopes,
            (s.all_shown - s.shown) * before.share as shown_before, (s.all_likes - s.likes) * before.share as likes_before,
            (s.all_nopes - s.nopes) * before.share as nopes_before
        from so_far s
        cross join lateral (select least(1, 1000 / s.all_shown) as share) as now
        cross join lateral (select least(1, 1000 / greatest(s.all_shown - s.shown, 1)) as share) as before
    ),
    by_day as (
        select c.model_version, c.day, count(*) filter (where c.is_first) as users,
            sum(c.shown - c.shown_before) as shown, sum(c.likes - c.likes_before) as likes, sum(c.nopes - c.nopes_before) as nopes,
            sum(c.shown ^ 2 - c.shown_before ^ 2) as shown_squared,
            sum(c.likes ^ 2 - c.likes_before ^ 2) as likes_squared, sum(c.nopes ^ 2 - c.nopes_before ^ 2) as nopes_squared,
            sum(c.shown * c.likes - c.shown_before * c.likes_before) as shown_likes,
            sum(c.shown * c.nopes - c.shown_before * c.nopes_before) as shown_nopes
        from counted c group by c.model_version, c.day
    ),
    calendar as (
        select v.model_version, d.at::date as day
        from (select min(b.day)::timestamp as since, max(b.day)::timestamp as until from by_day b) as r
        cross join lateral generate_series(r.since, r.until, interval '1 day') as d (at)
        cross join (select distinct b.model_version from by_day b) as v
    ),
    sums as (
        select c.day, c.model_version,
            sum(b.users) over w as users, sum(b.shown) over w as shown, sum(b.likes) over w as likes, sum(b.nopes) over w as nopes,
            sum(b.shown_squared) over w as shown_squared, sum(b.likes_squared) over w as likes_squared,
            sum(b.nopes_squared) over w as nopes_squared, sum(b.shown_likes) over w as shown_likes, sum(b.shown_nopes) over w as shown_nopes
        from calendar c left join by_day b on b.model_version = c.model_version and b.day = c.day
        window w as (partition by c.model_version order by c.day)
    )
    select s.day, s.model_version, s.users::bigint, s.shown::bigint, s.likes::bigint, s.nopes::bigint,
        r.likes, l.low, l.high, v.likes,
        r.nopes, n.low, n.high, v.nopes
    from sums s
    cross join lateral (select s.likes / s.shown as likes, s.nopes / s.shown as nopes) as r
    cross join lateral (
        select two_tower.rate_variance(s.users::bigint, s.shown, s.likes, s.shown_squared, s.likes_squared, s.shown_likes) as likes,
            two_tower.rate_variance(s.users::bigint, s.shown, s.nopes, s.shown_squared, s.nopes_squared, s.shown_nopes) as nopes
    ) as v
    cross join lateral two_tower.rate_interval(r.likes, v.likes) l
    cross join lateral two_tower.rate_interval(r.nopes, v.nopes) n
    where s.users > 0
    order by s.day, s.model_version
$func$;

comment on function two_tower.experiment_days(int) is
'An experiment from its start to the end of each day (UTC): for each version how many users it showed how many videos, how many of these '
'they liked and noped afterwards, and the rates with confidence sequences of 95 %, which may be looked at daily, and their variances';
