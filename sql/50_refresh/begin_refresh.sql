drop function if exists two_tower.begin_refresh(interval);
-- SECURITY DEFINER: service_role refreshes without being able to write the log, the job log or the vectors.
create or replace function two_tower.begin_refresh(
    p_max_batches int default null, p_max_duration interval default null, p_max_changes int default null, p_all_jobs boolean default false,
    out state jsonb, out finished boolean, out result jsonb, out jobs jsonb, out failure text, out failure_code text
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_run_id bigint;
begin
    finished := false;
    result := '{"users": 0, "videos": 0, "vectors": 0, "failed": 0}';
    jobs := '{}';
    begin
        perform two_tower.requeue_failures();
        perform two_tower.collect_user_changes();
        if exists (select from two_tower.user_changes) or exists (select from two_tower.video_changes) then
            -- How long the oldest change has waited, which nothing can tell once it is refreshed.
            insert into two_tower.job_runs (job, result)
            select 'refresh', jsonb_build_object('lag_seconds', round(extract(epoch from clock_timestamp() - min(c.logged_at)), 1))
            from (select u.logged_at from two_tower.user_changes u union all select v.logged_at from two_tower.video_changes v) as c
            returning id into v_run_id;
        end if;
    exception when query_canceled or others then
        failure := sqlerrm;
        failure_code := sqlstate;
        insert into two_tower.job_runs (job, error, finished_at) values ('refresh', sqlerrm, clock_timestamp());
        finished := failure_code = '57014';
    end;
    state := jsonb_build_object(
        'phase', case when v_run_id is null then 'jobs' else 'drain' end, 'run_id', v_run_id, 'result', result, 'ran', jobs,
        'failure', failure, 'failure_code', failure_code,
        -- Each worker starts at another place of the log; a second lap takes what comes before that place.
        'after', gen_random_uuid(), 'laps', 0, 'batches', 0, 'tries', 0,
        'max_batches', p_max_batches, 'until', clock_timestamp() + p_max_duration, 'max_changes', p_max_changes,
        'jobs', (
            select jsonb_agg(d.job) from two_tower.job_definitions() d
            where d.job in ('update_popularity', 'purge_logs') or (p_all_jobs and d.job <> 'refresh')
        )
    );
end
$func$;

comment on function two_tower.begin_refresh(int, interval, int, boolean) is
'Begins a refresh: collects changes and, if there are any, opens a run in the job log. refresh_step() continues from this state '
'until it is finished, within the given limits of batches, time, and users and videos. '
'Popularity and purge follow if they are due; with p_all_jobs all other jobs, too';
