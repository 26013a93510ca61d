create or replace view two_tower.models with (security_invoker = true) as
select m.version, m.state, m.user_dim, m.item_dim, m.registered_at, m.backfilled_at, m.activated_at,
    d.metrics, d.meta, two_tower.backfilled_share(m.version) as backfilled, m.forced
from two_tower.model_versions m
join two_tower.model_documents d on d.model_version = m.version;

comment on view two_tower.models is 'Every registered version with its state, its metrics, and the share of its vectors that is there';

create or replace view two_tower.job_log with (security_invoker = true) as
select r.id, r.job, r.started_at, r.finished_at, r.result, r.error from two_tower.job_runs r;

comment on view two_tower.job_log is 'Runs of the jobs, with what each did or why it failed';

create or replace view two_tower.failed_changes with (security_invoker = true) as
select f.kind, f.id, f.sqlstate, f.error, f.attempts, f.failed_at, f.retry_at from two_tower.change_failures f;

comment on view two_tower.failed_changes is 'Users and videos set aside because refreshing them failed';

create or replace view two_tower.status with (security_invoker = true) as
select
    two_tower.active_version() as active_version,
    (select count(*) from two_tower.user_changes) as pending_user_changes,
    (select count(*) from two_tower.video_changes) as pending_video_changes,
    (
        select now() - min(c.logged_at)
        from (select logged_at from two_tower.user_changes union all select logged_at from two_tower.video_changes) as c
    ) as lag,
    (select count(*) from two_tower.change_failures) as failed_changes,
    (select count(*) from public.videos) as videos,
    (select count(*) from public.video_embeddings) as video_vectors,
    (select count(*) from public.user_features where like_count > 0) as users_with_likes,
    (select count(*) from public.user_embeddings) as user_vectors,
    (select max(r.finished_at) from two_tower.job_runs r where r.job = 'refresh' and r.error is null) as last_refresh,
    (select r.error from two_tower.job_runs r where r.error is not null order by r.started_at desc limit 1) as last_error;

comment on view two_tower.status is 'How fresh and how complete the vectors are';
