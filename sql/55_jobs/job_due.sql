create or replace function two_tower.job_due(p_job text) returns boolean
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_period interval := (
        select case when split_part(d.schedule, ' ', 2) = '*' then interval '1 hour' else interval '1 day' end
        from two_tower.job_definitions() d where d.job = p_job
    );
    v_last timestamptz := (select max(r.started_at) from two_tower.job_runs r where r.job = p_job and r.error is null);
begin
    if exists (select from two_tower.job_runs r where r.job = p_job and r.error is not null and r.started_at > now() - interval '1 hour') then
        return false;
    end if;
    return v_last is null or v_last <= now() - v_period and (
        v_last <= now() - 2 * v_period or not exists (select from two_tower.cron_jobs() c where c.job = p_job and c.scheduled)
    );
end
$func$;

comment on function two_tower.job_due(text) is
'Whether a daily or hourly job has not succeeded for its period, nor failed in the last hour. '
'A job that pg_cron has scheduled is left to pg_cron for twice as long';
