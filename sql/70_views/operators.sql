create or replace view two_tower.models with (security_invoker = true) as
select m.version, m.state, m.user_dim, m.item_dim, m.registered_at, m.backfilled_at, m.activated_at,
    d.metrics, d.meta, two_tower.backfilled_share(m.version) as backfilled, m.forced,
    m.user_engine <> 'given' as follows_likes
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
with pending as (
    select
        (select count(*) from two_tower.pending_users) as users,
        (select count(*) from two_tower.video_changes) as videos,
        now() - least(
            (select min(c.logged_at) from two_tower.pending_users c), (select min(c.logged_at) from two_tower.video_changes c)
        ) as lag
),

-- What readers see, each vector with the version that it says it is of.
served as (
    select
        count(*) filter (where v.kind = 'video') as videos,
        count(*) filter (where v.kind = 'user') as users,
        count(*) filter (where v.model_version is distinct from (select two_tower.own_version())) as mixed
    from (
        select 'video' as kind, model_version from two_tower.active_video_embeddings
        union all
        select 'user', model_version from two_tower.active_user_embeddings
    ) as v
),

-- Of refreshes that had something to write.
refreshes as (
    select (r.result ->> 'vectors')::numeric as vectors, extract(epoch from r.finished_at - r.started_at) as seconds
    from two_tower.job_runs r
    where r.job = 'refresh' and r.finished_at is not null and (r.result ->> 'vectors')::int > 0
    order by r.started_at desc limit 20
)

select
    two_tower.active_version() as active_version,
    p.users as pending_user_changes,
    p.videos as pending_video_changes,
    p.lag,
    (select count(*) from two_tower.change_failures) as failed_changes,
    (select count(*) from public.videos) as videos,
    s.videos as video_vectors,
    (select count(*) from two_tower.liking_users()) as users_with_likes,
    s.users as user_vectors,
    (select max(r.finished_at) from two_tower.job_runs r where r.job = 'refresh' and r.error is null) as last_refresh,
    (select r.error from two_tower.job_runs r where r.error is not null order by r.started_at desc limit 1) as last_error,
    coalesce(extract(epoch from p.lag), 0)::double precision as lag_seconds,
    (select round(sum(r.vectors) / nullif(sum(r.seconds), 0), 1) from refreshes r)::double precision as vectors_per_second,
    s.mixed as mixed_versions,
    (select m.user_engine <> 'given' from two_tower.model_versions m where m.version = two_tower.active_version()) as follows_likes
from pending p cross join served s;

comment on view two_tower.status is
'How fresh and how complete the vectors are. lag: age of the oldest waiting change; vectors_per_second: over the last 20 refreshes '
'that wrote any; mixed_versions: vectors that the reader sees and that are not of the version that serves it, always 0; '
'follows_likes: false if the vectors of the active version were uploaded (two-tower model upload-vectors), so likes do not change them';
