-- SECURITY DEFINER: jobs belong to whoever scheduled them, which is the owner.
create or replace function two_tower.unschedule_jobs() returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_count int := 0;
begin
    if two_tower.may_use_cron() and to_regprocedure('cron.unschedule(bigint)') is not null then
        select count(*) filter (where cron.unschedule(j.jobid)) into v_count
        from cron.job j
        where j.jobname in (select d.cron_name from two_tower.job_definitions() d) and j.database = current_database();
    end if;
    return v_count;
end
$func$;

comment on function two_tower.unschedule_jobs() is 'Removes the jobs from pg_cron; how many there were';
