-- The change log: append-only for writers, consumed by refreshes.
-- depends: 0006.embeddings

-- No key and no index: they would make every like slower, and a refresh reads all rows at once. The identity is needed to delete rows if
-- all tables are published. Vacuums come early, so that pages are reused, and truncate the table: this takes a lock for which a vacuum does
-- not wait, and which it releases when somebody else requests it.
create table two_tower.user_change_log (
    user_id uuid not null,
    logged_at timestamptz not null default now()
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

alter table two_tower.user_change_log replica identity full;

comment on table two_tower.user_change_log is 'Users of changed decisions, appended by triggers';

-- Keyed by the user or video, so that all changes of one are processed together, in an order that all refreshes share.
-- Values of id come from a sequence, and are not in the order of commits; nothing relies on that.
create table two_tower.user_changes (
    user_id uuid not null,
    id bigint generated always as identity,
    logged_at timestamptz not null default now(),
    primary key (user_id, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

comment on table two_tower.user_changes is 'Users to refresh: from user_change_log, likers of changed videos, and marked users';

create table two_tower.video_changes (
    video_id uuid not null,
    id bigint generated always as identity,
    logged_at timestamptz not null default now(),
    -- Whether the change affects users, so that its likers must be refreshed, too. Titles, descriptions, durations and dates only place the
    -- video.
    reaches_users boolean not null default true,
    primary key (video_id, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

comment on table two_tower.video_changes is 'Videos whose inputs changed since they were last refreshed';

-- A refresh writes the versions that are attached. What it takes from the log while another is being filled is kept here for that
-- one, until two_tower.attach_partitions() puts it back. '' stands for the versions that a transaction with an older snapshot does not see.
create table two_tower.backfill_changes (
    model_version text not null,
    video_id uuid not null,
    reaches_users boolean not null,
    primary key (model_version, video_id)
);

comment on table two_tower.backfill_changes is 'Changed videos that were refreshed while a version''s videos were being embedded';

-- Changes whose processing failed, set aside until retry_at.
create table two_tower.change_failures (
    kind text not null check (kind in ('user', 'video')),
    id uuid not null,
    sqlstate text not null,
    error text not null,
    attempts int not null default 1,
    failed_at timestamptz not null default now(),
    retry_at timestamptz not null,
    primary key (kind, id)
);

comment on table two_tower.change_failures is 'Users and videos that are set aside because their refresh failed';

create table two_tower.job_runs (
    id bigint generated always as identity primary key,
    job text not null,
    started_at timestamptz not null default now(),
    finished_at timestamptz,
    result jsonb,
    error text
);

comment on table two_tower.job_runs is 'Runs of the jobs, read through two_tower.job_log';

create index job_runs_job_idx on two_tower.job_runs (job, started_at desc);

-- The version of the routines: a program of another version reports the difference and its remedy.
create table two_tower.installation (
    one boolean primary key default true check (one),
    program text not null,
    logic_sha256 text not null,
    applied_at timestamptz not null default now()
);

comment on table two_tower.installation is 'Which program applied the routines, and the sha256 of their sources';

alter table two_tower.user_change_log enable row level security;
alter table two_tower.user_changes enable row level security;
alter table two_tower.video_changes enable row level security;
alter table two_tower.backfill_changes enable row level security;
alter table two_tower.change_failures enable row level security;
alter table two_tower.job_runs enable row level security;
alter table two_tower.installation enable row level security;

revoke all on two_tower.user_change_log, two_tower.user_changes, two_tower.video_changes, two_tower.backfill_changes,
two_tower.change_failures, two_tower.job_runs, two_tower.installation from public, anon, authenticated, service_role;
revoke all on all sequences in schema two_tower from public, anon, authenticated, service_role;

-- The page and the status see all rows.
create policy two_tower_viewer on two_tower.user_change_log for select to two_tower_viewer using (true);
create policy two_tower_viewer on two_tower.user_changes for select to two_tower_viewer using (true);
create policy two_tower_viewer on two_tower.video_changes for select to two_tower_viewer using (true);
create policy two_tower_viewer on two_tower.change_failures for select to two_tower_viewer using (true);
create policy two_tower_viewer on two_tower.job_runs for select to two_tower_viewer using (true);
