-- SECURITY DEFINER: service_role purges logs that nobody but the owner may write; pg_cron lets the owner delete runs of the owner's jobs.
--
-- Impressions come last: from the first day that is dropped until the end of the transaction, nobody else has the table.
create or replace function two_tower.purge_logs(p_keep interval default '7 days') returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_jobs int;
    v_cron int := 0;
    v_days int;
    v_done jsonb;
begin
    -- The last run of each job stays, however old: it says since when nothing has run.
    delete from two_tower.job_runs r
    where r.started_at < now() - p_keep
        and exists (select from two_tower.job_runs later where later.job = r.job and later.started_at > r.started_at);
    get diagnostics v_jobs = row_count;
    -- pg_cron keeps every run for ever: a job a minute is half a million rows a year.
    if two_tower.may_use_cron() then
        delete from cron.job_run_details d
        where d.end_time < now() - p_keep
            and d.jobid in (
                select j.jobid from cron.job j where j.jobname in (select o.cron_name from two_tower.job_definitions() o)
            );
        get diagnostics v_cron = row_count;
    end if;
    for v_ahead in 0 .. 2 loop
        perform two_tower.make_impression_day((now() at time zone 'UTC')::date + v_ahead);
    end loop;
    v_days := two_tower.drop_old_impressions();
    v_done := jsonb_build_object('job_runs', v_jobs, 'cron_runs', v_cron, 'impression_days', v_days);
    insert into two_tower.job_runs (job, result, finished_at) values ('purge_logs', v_done, clock_timestamp());
    return v_done;
end
$func$;

comment on function two_tower.purge_logs(interval) is
'Deletes job log entries older than p_keep, also those of pg_cron; creates the next daily partitions of impressions, and drops those '
'that are older than the setting impressions_kept_days; counts';
