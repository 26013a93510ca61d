-- SECURITY DEFINER: service_role asks for the count, and nobody but the owner may write it.
create or replace function two_tower.update_popularity() returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_rows int;
begin
    -- Two at once would lock the same rows in different orders.
    perform pg_advisory_xact_lock(hashtextextended('two_tower.update_popularity', 0));
    perform two_tower.link_reviewers();
    -- What other shards counted is brought to the newest like of all, by the same half-life, and like theirs has a value in single precision.
    with counted as materialized (
        select o.* from two_tower.own_popularity() o
        union all
        select s.days, s.video_id, s.score, s.likers, s.as_of, s.counted_at from two_tower.shard_popularity s
    ),
    latest as (
        select max(c.as_of) as at, two_tower.model_setting('popularity_half_life_days') * 86400 as half_life from counted c
    ),
    scored as (
        select c.video_id, sum(c.likers)::int as likers,
            greatest(
                sum(c.score * 0.5 ^ least(extract(epoch from l.at - c.as_of)::double precision / l.half_life, 120)), 0.5 ^ 120::double precision
            ) as score
        from counted c cross join latest l where c.days = 0 group by c.video_id
    ),
    gone as (
        delete from two_tower.video_popularity p where not exists (select from scored s where s.video_id = p.video_id)
    ),
    -- What a shard counted longer ago than a window is long, lies before it.
    trends as materialized (
        select c.days, c.video_id, sum(c.likers)::int as likers
        from counted c where c.days > 0 and c.counted_at > now() - c.days * interval '1 day' group by c.days, c.video_id
    ),
    trends_gone as (
        delete from two_tower.video_trends o
        where not exists (select from trends t where t.days = o.days and t.video_id = o.video_id)
    ),
    trends_written as (
        insert into two_tower.video_trends as o (days, video_id, likers)
        select t.days, t.video_id, t.likers from trends t
        on conflict (days, video_id) do update set likers = excluded.likers where o.likers <> excluded.likers
    )
    insert into two_tower.video_popularity as p (video_id, score, likers)
    select s.video_id, s.score, s.likers from scored s
    on conflict (video_id) do update set score = excluded.score, likers = excluded.likers
    where (p.score, p.likers) <> (excluded.score, excluded.likers);
    get diagnostics v_rows = row_count;
    perform two_tower.draw_exploration();
    insert into two_tower.job_runs (job, result, finished_at)
    values ('update_popularity', jsonb_build_object('videos', v_rows), clock_timestamp());
    return v_rows;
end
$func$;

comment on function two_tower.update_popularity() is
'Counts likes per video, also those of reviews, each halved per half-life of age relative to the newest, and how many people liked '
'each video lately; adds the last counts of other shards (two_tower.shard_popularity); rows of popularity changed';
