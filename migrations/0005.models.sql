-- The model registry, and what becomes of each version, and why.
-- depends: 0004.decisions-and-features

create table two_tower.settings (
    name text primary key,
    value jsonb not null,
    description text not null
);

comment on table two_tower.settings is 'Settings that operators may change, each with what it means';

insert into two_tower.settings values
('inference_engine', '"auto"', 'How vectors of versions registered from now on are computed: sql (weights as rows), onnxruntime, or auto'),
('product_urls', '"as_written"', 'How imports write addresses of products: as_written, normalised, or normalised_lower_case'),
('popularity_half_life_days', '90', 'Age, relative to the newest decision, at which a like counts half'),
('most_decisions', '10000', 'How many decisions and reviews of one account count in training and popularity, its latest; 0 for all'),
('least_likers', '5', 'How many people must like a video before lists for everybody say anything that is known of them'),
('model_max_bytes', '268435456', 'Largest tower or file of weights that is kept, in bytes; a larger one is kept as rows alone'),
('gate_max_drop', '0.05', 'Share by which Recall@20 and NDCG@20 may be below those of the active model (for the first: of popularity)'),
('gate_over_popularity', '1.1', 'How many times the Recall@20 of popularity that of a model must be'),
('gate_min_recall_at_20', '0', 'Least Recall@20 of a model'),
('gate_min_ndcg_at_20', '0', 'Least NDCG@20 of a model'),
('gate_min_recall', '0.9', 'Share of the exact nearest videos that the index of a model must find'),
('search_min_recall', '0.99', 'Share of the exact best videos that lists hold: at activation, it says how wide an index is searched'),
('gate_max_distance', '0.001', 'Largest cosine distance between what a model computes, what it is known to give, and what is stored'),
('gate_max_replay_drop', '1', 'Share by which the like rate of a replay may surely be below the active version''s; 1 asks for no replay'),
('gate_sample', '50', 'How many users and videos the gate looks at'),
('impressions_kept_days', '90', 'How many days what was shown to users is kept'),
('shown_again_after_hours', '24', 'How long next_videos() does not repeat what was shown, in hours; no longer than it is kept'),
('freshness_half_life_days', '0', 'Age at which a video has half of what being new moves it up in lists, in days; 0 for nothing'),
('exploration_share', '0', 'Share of the places of a user''s list that go to videos few have been shown, up to 0.5'),
('shown_per_day', '10000', 'How many videos one user may be logged to have been shown within 24 hours'),
('status_max_lag_seconds', '120', 'How long a change may wait in the log before two_tower.problems names it, in seconds'),
('status_expects_jobs', 'true', 'Whether two_tower.problems names jobs that pg_cron lacks; false where another scheduler refreshes');

-- States and their transitions:
--   candidate -> staged (gate passed) | rejected (gate failed)
--   staged    -> active (backfilled, full coverage) | standby (the same, for an experiment) | retired
--   active    -> standby (another version was activated)
--   standby   -> active (rollback, or an experiment that it won) | retired
-- two_tower.model_transition() enforces them. The row is narrow, because every reader looks up the active version.
create table two_tower.model_versions (
    version text primary key check (version ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    number int generated always as identity unique,
    state text not null default 'candidate'
    check (state in ('candidate', 'rejected', 'staged', 'active', 'standby', 'retired')),
    schema_version int not null,
    user_dim int not null check (user_dim > 0),
    item_dim int not null check (item_dim > 0),
    -- Chosen when the version is registered, so that what is installed later changes no vector. given: vectors were computed elsewhere.
    user_engine text not null check (user_engine in ('sql', 'onnxruntime', 'given')),
    item_engine text not null check (item_engine in ('sql', 'onnxruntime', 'given')),
    registered_at timestamptz not null default now(),
    backfilled_at timestamptz,
    activated_at timestamptz,
    -- Its partitions take part, so refreshes write it.
    attached_at timestamptz,
    -- What changed before that is made good.
    checked_at timestamptz,
    -- How many videos have neighbours in it: where none has, lists do not ask.
    with_neighbours int not null default 0,
    -- How many more candidates a search of the index holds than a list asks for and excludes, as two_tower.tune_search() measured it; 0
    -- where every distance is computed, null where it was not measured.
    search_margin int check (search_margin >= 0),
    -- It was staged or activated although its gate said no.
    forced boolean not null default false
);

comment on table two_tower.model_versions is 'Every registered model version and its state; one is active at most';

create unique index model_versions_one_active on two_tower.model_versions (state) where state = 'active';

create table two_tower.model_files (
    model_version text not null references two_tower.model_versions (version) on delete cascade,
    name text not null check (name in ('user_tower.onnx', 'item_tower.onnx', 'weights.safetensors')),
    content bytea not null,
    sha256 text not null generated always as (encode(sha256(content), 'hex')) stored,
    primary key (model_version, name)
);

comment on table two_tower.model_files is 'The towers (ONNX) and weights (safetensors) of each version';

-- Weights do not compress; storing them as they are makes loading a model faster.
alter table two_tower.model_files alter column content set storage external;

create table two_tower.model_documents (
    model_version text primary key references two_tower.model_versions (version) on delete cascade,
    feature_schema jsonb not null,
    normalizer jsonb not null,
    metrics jsonb not null,
    meta jsonb not null
);

comment on table two_tower.model_documents is 'Feature schema, normalizer, metrics and description of each version';

-- One row per run of inputs of a tower, as the feature schema has it; offsets count from 0.
create table two_tower.model_segments (
    model_version text not null references two_tower.model_versions (version) on delete cascade,
    tower text not null check (tower in ('user', 'item')),
    segment text not null,
    vocabulary text,
    "offset" int not null check ("offset" >= 0),
    size int not null check (size >= 0),
    primary key (model_version, tower, segment)
);

comment on table two_tower.model_segments is 'Runs of inputs of each tower, by version';

-- The towers as rows, put there by COPY before two_tower.register_model() is called, and never changed afterwards (sql/30_inference
-- says what each part is). Without a foreign key, since they come first.
do $weights$
declare
    v_extensions text := (
        select quote_ident(n.nspname) from pg_catalog.pg_extension e
        join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'vector'
    );
begin
    execute 'create table two_tower.model_weights (
        model_version text not null,
        tower text not null check (tower in (''user'', ''item'')),
        part text not null,
        position int not null,
        weight ' || v_extensions || '.vector not null,
        primary key (model_version, tower, part, position)
    )';
end
$weights$;

comment on table two_tower.model_weights is 'The weights of both towers as rows, by version: what the engine sql computes vectors from';

-- The sparse part of a version's score: liking a video adds these weights to the scores of these videos, beside what its taste adds. A row
-- for each video, since a list reads those of all that a user likes: so the other ids lie in one place. Like the weights, they come before
-- their version is registered, and never change afterwards.
create table two_tower.neighbour_lists (
    model_version text not null,
    video_id uuid not null,
    neighbour_ids uuid[] not null,
    weights real[] not null,
    -- By the video first: ids are compared faster than names of versions.
    primary key (video_id, model_version),
    check (cardinality(neighbour_ids) = cardinality(weights))
);

comment on table two_tower.neighbour_lists is
'What liking a video adds to the scores of which others, by version; two_tower.video_neighbours has it by pairs';

-- Ids and weights hardly compress, are read with every list, and lie in the row itself up to some 300 of them.
alter table two_tower.neighbour_lists set (toast_tuple_target = 8160);
alter table two_tower.neighbour_lists alter column neighbour_ids set storage external;
alter table two_tower.neighbour_lists alter column weights set storage external;

create table two_tower.vocabularies (
    model_version text not null references two_tower.model_versions (version) on delete cascade,
    vocabulary text not null,
    key text not null,
    index int not null check (index >= 0),
    primary key (model_version, vocabulary, key)
);

comment on table two_tower.vocabularies is 'Keys of each vocabulary and their index, by version';

-- What the encoder looks up: segments and vocabularies, joined. Positions count from 1, as in a sparsevec.
create table two_tower.model_inputs (
    model_version text not null references two_tower.model_versions (version) on delete cascade,
    tower text not null,
    segment text not null,
    key text not null,
    position int not null,
    primary key (model_version, tower, segment, key)
);

comment on table two_tower.model_inputs is 'What the encoder looks up: the position of each key in each segment, by version';

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

alter table two_tower.settings enable row level security;
alter table two_tower.model_versions enable row level security;
alter table two_tower.model_files enable row level security;
alter table two_tower.model_documents enable row level security;
alter table two_tower.model_segments enable row level security;
alter table two_tower.model_weights enable row level security;
alter table two_tower.neighbour_lists enable row level security;
alter table two_tower.vocabularies enable row level security;
alter table two_tower.model_inputs enable row level security;
alter table two_tower.model_events enable row level security;

revoke all on two_tower.settings, two_tower.model_versions, two_tower.model_files, two_tower.model_documents, two_tower.model_segments,
two_tower.model_weights, two_tower.neighbour_lists, two_tower.vocabularies, two_tower.model_inputs, two_tower.model_events
from public, anon, authenticated, service_role;
revoke all on all sequences in schema two_tower from public, anon, authenticated, service_role;

create policy two_tower_active on two_tower.model_versions for select to authenticated using (state = 'active');

-- Who looks at the page, or at the status, sees every row.
create policy two_tower_viewer on two_tower.settings for select to two_tower_viewer using (true);
create policy two_tower_viewer on two_tower.model_versions for select to two_tower_viewer using (true);
create policy two_tower_viewer on two_tower.model_documents for select to two_tower_viewer using (true);
create policy two_tower_viewer on two_tower.neighbour_lists for select to two_tower_viewer using (true);
create policy two_tower_viewer on two_tower.model_events for select to two_tower_viewer using (true);
