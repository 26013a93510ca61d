-- What becomes of a model version, and why; what its gate asks for.
-- depends: 0007.change-log

-- attached_at: its partitions take part, so refreshes write it. checked_at: what changed before that is made good.
-- forced: it was staged or activated although its gate said no.
alter table two_tower.model_versions
add column attached_at timestamptz,
add column checked_at timestamptz,
add column forced boolean not null default false;

-- Until now every version that was staged had its partitions.
update two_tower.model_versions
set attached_at = coalesce(backfilled_at, now()), checked_at = coalesce(backfilled_at, now())
where state in ('staged', 'active', 'standby');

-- Without a foreign key: the history of a version outlives it.
create table two_tower.model_events (
    id bigint generated always as identity primary key,
    model_version text not null,
    at timestamptz not null default clock_timestamp(),
    role text not null default session_user,
    from_state text,
    to_state text not null,
    forced boolean not null default false,
    report jsonb
);

comment on table two_tower.model_events is
'Every change of state of a model version, with what its gate found and whether it was overruled';

create index model_events_model_version_idx on two_tower.model_events (model_version, id);

insert into two_tower.settings values
('model_max_bytes', '268435456', 'Largest tower or file of weights that may be registered, in bytes'),
('gate_max_drop', '0.05', 'Share by which Recall@20 and NDCG@20 may be below those of the active model (for the first: of popularity)'),
('gate_min_recall', '0.9', 'Share of the exact nearest videos that the index of a model must find'),
('gate_max_distance', '0.001', 'Largest cosine distance between what a model computes, what it is known to give, and what is stored'),
('gate_sample', '50', 'How many users and videos the gate looks at');
