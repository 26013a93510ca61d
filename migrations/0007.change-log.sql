-- The change log: append-only for writers, consumed by refreshes.
-- depends: 0006.embeddings

-- Keyed by the changed row's id, so that all changes of one user are taken together, in an order that two refreshes share.
-- Values of id come from a sequence and say nothing about commit order; nothing relies on that. A vacuum that gave the end of
-- an emptied log back would lock it against writers meanwhile: pages stay, and are used again.
create table two_tower.user_changes (
    user_id uuid not null,
    id bigint generated always as identity,
    logged_at timestamptz not null default now(),
    primary key (user_id, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, vacuum_truncate = off);

comment on table two_tower.user_changes is 'Users whose inputs changed since they were last refreshed';

create table two_tower.video_changes (
    video_id uuid not null,
    id bigint generated always as identity,
    logged_at timestamptz not null default now(),
    primary key (video_id, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, vacuum_truncate = off);

comment on table two_tower.video_changes is 'Videos whose inputs changed since they were last refreshed';

-- Changes with the catalogue: backends that have read videos keep what they read while this is the same.
create table two_tower.catalogue_state (
    one boolean primary key default true check (one),
    generation uuid not null default gen_random_uuid()
);

comment on table two_tower.catalogue_state is 'Which generation of the catalogue this is; another one after every refresh of videos';

insert into two_tower.catalogue_state default values;

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

comment on table two_tower.change_failures is 'Users and videos set aside because refreshing them failed';

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
