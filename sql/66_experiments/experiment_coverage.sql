-- Whom more users see shows more of the catalogue, so both are brought down to the number of users of the smaller side: the expected number of
-- videos shown to at least one of as many, drawn at random (rarefaction by samples: Colwell et al., Journal of Plant Ecology 5, 2012; by
-- draws of each user on its own, which for many users is the same). The variance is the jackknife's over users (Efron and Stein 1981): what
-- each user adds that others do not. It is not one to be looked at daily, and what is shown grows with time.
create or replace function two_tower.experiment_coverage(p_experiment int) returns table (
    model_version text, videos bigint, share double precision, low double precision, high double precision
)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    with seen as materialized (
        select o.model_version, o.user_id, o.video_id
        from two_tower.experiments e
        cross join lateral two_tower.shown_outcomes(e.started_at, coalesce(e.stopped_at, 'infinity'), e.id) o
        where e.id = p_experiment
    ),
    sides as (
        select s.model_version, count(distinct s.user_id)::float8 as users from seen s group by s.model_version
    ),
    drawn as (
        select s.model_version, s.users, min(s.users) over () / s.users as chance from sides s
    ),
    videos as (
        select s.model_version, s.video_id, count(*)::float8 as viewers from seen s group by s.model_version, s.video_id
    ),
    expected as (
        select d.model_version, d.users, count(*) as videos, sum(1 - (1 - d.chance) ^ v.viewers) as number
        from drawn d join videos v on v.model_version = d.model_version
        group by d.model_version, d.users
    ),
    added as (
        select s.model_version, s.user_id, sum(d.chance * (1 - d.chance) ^ (v.viewers - 1)) as number
        from seen s
        join drawn d on d.model_version = s.model_version
        join videos v on v.model_version = s.model_version and v.video_id = s.video_id
        group by s.model_version, s.user_id
    ),
    spread as (
        select a.model_version, sqrt((count(*) - 1) * var_pop(a.number)) as deviation from added a group by a.model_version
    ),
    catalogue as (
        select nullif(count(*), 0)::float8 as videos from two_tower.visible_videos
    )
    select x.model_version, x.videos, x.number / c.videos,
        greatest(x.number - 1.96 * s.deviation, 0) / c.videos, least(x.number + 1.96 * s.deviation, c.videos) / c.videos
    from expected x join spread s on s.model_version = x.model_version cross join catalogue c
    order by x.model_version
$func$;

comment on function two_tower.experiment_coverage(int) is
'How many videos each version of an experiment showed, and the share of the catalogue that it shows to as many users as the other has, '
'with an interval of 95 % for one look';
