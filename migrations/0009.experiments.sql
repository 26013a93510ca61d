-- Comparisons of two versions, each for its share of the users.
-- depends: 0008.lists

-- control: the active version, which serves all other users. challenger: a standby version, which serves the share of users chosen by
-- two_tower.in_share(). One experiment runs at a time. No foreign keys: the results outlive the versions.
create table two_tower.experiments (
    id int generated always as identity primary key,
    control text not null,
    challenger text not null check (challenger <> control),
    share double precision not null check (share > 0 and share < 1),
    started_at timestamptz not null default clock_timestamp(),
    stopped_at timestamptz,
    winner text check (winner in (control, challenger)),
    role text not null default session_user
);

comment on table two_tower.experiments is
'Experiments on users, running and past: written by two_tower.start_experiment() and stop_experiment()';
comment on column two_tower.experiments.share is 'Share of the users whom the challenger serves';
comment on column two_tower.experiments.stopped_at is 'Null while it runs';
comment on column two_tower.experiments.winner is 'The version that serves everybody since; null if none was chosen as better';

create unique index experiments_one_runs on two_tower.experiments ((stopped_at is null)) where stopped_at is null;

alter table two_tower.experiments enable row level security;

revoke all on two_tower.experiments from public, anon, authenticated, service_role;
revoke all on all sequences in schema two_tower from public, anon, authenticated, service_role;

create policy two_tower_viewer on two_tower.experiments for select to two_tower_viewer using (true);
