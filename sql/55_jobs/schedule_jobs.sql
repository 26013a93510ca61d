-- SECURITY DEFINER: jobs run as whoever schedules them, and refreshing takes the owner's rights. A superuser who schedules them has them run
-- as the owner, too.
create or replace function two_tower.schedule_jobs() returns table (job text, schedule text, command text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    if to_regnamespace('cron') is not null and not two_tower.may_use_cron() then
        raise exception 'the role %, to whom the recommender belongs, may not use pg_cron', current_user using errcode = '42501',
            hint = format('As a superuser run: grant usage on schema cron to %I', current_user);
    end if;
    if to_regprocedure('cron.schedule(text, text, text)') is null then
        raise exception 'pg_cron is not installed in this database' using errcode = '55000',
            hint = 'Add pg_cron to shared_preload_libraries, set cron.database_name to this database, restart, and migrate again; or call two_tower.refresh() from a scheduler of your own.';
    end if;
    if not (select r.rolcanlogin from pg_catalog.pg_roles r where r.rolname = current_user) then
        raise exception 'pg_cron runs jobs as the role %, which may not log in', current_user using errcode = '55000',
            hint = format('As a superuser run: alter role %I login', current_user);
    end if;
    -- Scheduling again leaves a job's database, port and pause as they are, so what came with a dump, or was paused, is made anew.
    perform cron.unschedule(c.jobid) from two_tower.cron_jobs() c where c.jobid is not null and not c.scheduled;
    return query
    select d.cron_name, d.schedule, d.command
    from two_tower.job_definitions() d
    cross join lateral cron.schedule(d.cron_name, d.schedule, d.command) as id
    where id is not null;
end
$func$;

comment on function two_tower.schedule_jobs() is
'Schedules the jobs in pg_cron: refresh every minute, users hourly, videos, popularity, verify and purge daily. A second call '
'changes nothing';
