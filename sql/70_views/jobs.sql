create or replace view two_tower.jobs with (security_invoker = true) as
select d.job, d.schedule, d.command, c.scheduled,
    t.last_success, t.last_failure,
    case when c.last_failure > l.last_failure or l.last_failure is null then c.last_error else l.last_error end as last_error,
    -- What a failed refresh was about stays in the change log; where nothing is left there, nothing is undone.
    coalesce(
        greatest(c.last_failure, case
            when d.job <> 'refresh'
                or exists (select from two_tower.pending_users)
                or exists (select from two_tower.video_changes) then l.last_failure
        end) > coalesce(t.last_success, '-infinity'), false
    ) as failing
from two_tower.job_definitions() d
left join two_tower.cron_jobs() c on c.job = d.job
left join lateral (
    select max(r.finished_at) filter (where r.error is null) as last_success,
        max(r.finished_at) filter (where r.error is not null) as last_failure,
        (array_agg(r.error order by r.id desc) filter (where r.error is not null))[1] as last_error
    from two_tower.job_runs r where r.job = d.job
) as l on true
cross join lateral (
    select greatest(l.last_success, c.last_success) as last_success, greatest(l.last_failure, c.last_failure) as last_failure
) as t;

comment on view two_tower.jobs is
'The jobs, from the job log and from pg_cron. scheduled: by pg_cron, null where there is none; failing: the last run to end failed';
