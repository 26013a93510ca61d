-- SECURITY DEFINER: service_role runs the job without being able to write what it writes.
create or replace function two_tower.try_update_popularity(p_if_due boolean default false) returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    if not p_if_due or not exists (
        select from two_tower.job_runs r
        where r.job = 'update_popularity'
            and r.started_at > now() - case when r.error is null then interval '1 day' else interval '1 hour' end
    ) then
        perform two_tower.update_popularity();
    end if;
    return null;
exception when query_canceled or others then
    insert into two_tower.job_runs (job, error, finished_at) values ('update_popularity', sqlerrm, clock_timestamp());
    return sqlerrm;
end
$func$;

comment on function two_tower.try_update_popularity(boolean) is
'update_popularity(), for those who have done more important things and must not fail for it: null, or the error, which the job log keeps. '
'With p_if_due only a day after it was last done, or an hour after it failed';
