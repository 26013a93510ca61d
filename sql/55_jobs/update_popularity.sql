-- SECURITY DEFINER: service_role asks for the count, and nobody but the owner may write it.
create or replace function two_tower.update_popularity() returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    -- Half-lives beyond which a like counts as if it were no older: the rest of its weight must have a value in single precision.
    c_most constant double precision := 120;
    v_half_life double precision := two_tower.model_setting('popularity_half_life_days') * 86400;
    v_rows int;
begin
    -- Two at once would lock the same rows in different orders.
    perform pg_advisory_xact_lock(hashtextextended('two_tower.update_popularity', 0));
    perform two_tower.link_reviewers();
    -- Ages are relative to the newest like, not to the clock: the same rows give the same order at any time. A like of the future is as
    -- good as one of now, and nothing is relative to it. A review without a time counts in full.
    with likes as materialized (
        select t.user_id, t.video_id, t.created_at from two_tower.training_set() t where t.label = 1
    ),
    scored as (
        select l.video_id,
            sum(0.5 ^ coalesce(least(greatest(extract(epoch from n.at - l.created_at)::double precision / v_half_life, 0), c_most), 0)) as score,
            count(distinct l.user_id)::int as likers
        from likes l cross join (select coalesce(max(created_at) filter (where created_at <= now()), now()) as at from likes) as n
        group by l.video_id
    ),
    gone as (
        delete from two_tower.video_popularity p where not exists (select from scored s where s.video_id = p.video_id)
    ),
    -- Windows end now. A like of the future is in none: it would be in all of them until then.
    trends as materialized (
        select d.days, l.video_id, count(distinct l.user_id)::int as likers
        from (values (1), (7), (30)) as d (days)
        join likes l on l.created_at > now() - d.days * interval '1 day' and l.created_at <= now()
        group by d.days, l.video_id
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
'Counts likes per video, those of reviews too, each halved per half-life of age relative to the newest, and by how many '
'people videos were liked of late; rows of popularity changed';
