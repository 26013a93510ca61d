-- SECURITY DEFINER: pg_cron shows jobs and their runs to whoever scheduled them, which is the owner, and to nobody else. Shown are our
-- own alone.
create or replace function two_tower.cron_jobs() returns table (
    job text, jobid bigint, scheduled boolean, last_success timestamptz, last_failure timestamptz, last_error text
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    if not two_tower.may_use_cron() then
        return;
    end if;
    if to_regclass('cron.job') is null or to_regclass('cron.job_run_details') is null then
        return;
    end if;
    return query
    select distinct on (d.job) d.job, j.jobid, coalesce(j.in_place, false), r.last_success, r.last_failure, r.last_error
    from two_tower.job_definitions() d
    left join (
        -- A dump carries jobs with the database and the port that they were scheduled with. Background workers need no port.
        select c.jobid, c.jobname::text as cron_name,
            c.active and c.database = current_database() and (
                c.nodeport = current_setting('port')::int or coalesce(current_setting('cron.use_background_workers', true)::boolean, false)
            ) as in_place
        from cron.job c
    ) as j on j.cron_name = d.cron_name
    left join lateral (
        select max(e.end_time) filter (where e.status = 'succeeded') as last_success,
            max(coalesce(e.end_time, e.start_time)) filter (where e.status = 'failed') as last_failure,
            (array_agg(btrim(e.return_message, e' \n') order by e.runid desc) filter (where e.status = 'failed'))[1] as last_error
        from cron.job_run_details e where e.jobid = j.jobid
    ) as r on true
    order by d.job, j.in_place desc nulls last;
end
$func$;

comment on function two_tower.cron_jobs() is
'Each job as pg_cron has it: whether it is scheduled here and active, its last runs; no rows where there is no pg_cron';
