-- The model registry, and the history of each version with its reasons.
-- depends: 0004.decisions-and-features

create table two_tower.settings (
    name text primary key,
    value jsonb not null,
    description text not null
);

comment on table two_tower.settings is 'Settings that operators may change, each with its meaning';

insert into two_tower.settings values
('inference_engine', '"auto"', 'How vectors of versions registered from now on are computed: sql (weights as rows), onnxruntime, or auto'),
('product_urls', '"as_written"', 'How imports write addresses of products: as_written, normalised, or normalised_lower_case'),
('popularity_half_life_days', '90', 'Age, relative to the newest decision, at which a like counts half'),
('most_decisions', '10000', 'How many of an account''s decisions and reviews count in training and popularity, the latest; 0 for all'),
('least_likers', '5', 'How many people must like a video before lists for everybody depend on their likes of it'),
('model_max_bytes', '268435456', 'Largest tower or file of weights that is stored, in bytes; a larger one is stored only as rows'),
('gate_max_drop', '0.05', 'Share by which Recall@20 and NDCG@20 may be below those of the active model (for the first: of popularity)'),
('gate_over_popularity', '1.1', 'Least Recall@20 of a model, as a multiple of popularity''s'),
('gate_min_recall_at_20', '0', 'Least Recall@20 of a model'),
('gate_min_ndcg_at_20', '0', 'Least NDCG@20 of a model'),
('gate_min_recall', '0.9', 'Share of the exact nearest videos that the index of a model must find'),
('search_min_recall', '0.99', 'Share of the exact best videos that lists must contain; activation tunes the search of the index to it'),
('gate_max_distance', '0.001', 'Largest cosine distance between vectors of the engine, of the model''s recorded sample, and those stored'),
('gate_max_replay_drop', '1', 'Share by which a replay''s like rate may be significantly below the active version''s; 1 requires none'),
('gate_sample', '50', 'How many users and videos the gate checks'),
('impressions_kept_days', '90', 'How many days impressions are kept'),
('shown_again_after_hours', '24', 'For how many hours next_videos() does not repeat a video; at most as long as impressions are kept'),
('freshness_half_life_days', '0', 'Age in days at which a video moves up half as much in lists as a new one; 0 moves none'),
('exploration_share', '0', 'Share of the places of a user''s list that go to videos which few users have been shown, up to 0.5'),
('shown_per_day', '10000', 'Most impressions that may be logged for one user within 24 hours'),
('status_max_lag_seconds', '120', 'How many seconds a change may wait in the log before two_tower.problems reports it'),
('status_expects_jobs', 'true', 'Whether two_tower.problems reports jobs that pg_cron lacks; false if another scheduler refreshes');

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
    -- Chosen when the version is registered, so that a later installation changes no vector. given: vectors were computed elsewhere.
    user_engine text not null check (user_engine in ('sql', 'onnxruntime', 'given')),
    item_engine text not null check (item_engine in ('sql', 'onnxruntime', 'given')),
    registered_at timestamptz not null default now(),
    backfilled_at timestamptz,
    activated_at timestamptz,
    -- When its partitions were attached; from then on, refreshes write them.
    attached_at timestamptz,
    -- How many videos have neighbours; if none has, lists do not look for any.
    with_neighbours int not null default 0,
    -- How many more candidates a search of the index keeps than a list requests and excludes, as measured by two_tower.tune_search(); 0
    -- if every distance is computed, null if it was not measured.
    search_margin int check (search_margin >= 0),
    -- Whether it was staged or activated although its gate refused it.
    forced boolean not null default false
);

comment on table two_tower.model_versions is 'Every registered model version and its state; at most one is active';

create unique index model_versions_one_active on two_tower.model_versions (state) where state = 'active';

create table two_tower.model_files (
    model_version text not null references two_tower.model_versions (version) on delete cascade,
    name text not null check (name in ('user_tower.onnx', 'item_tower.onnx', 'weights.safetensors')),
    content bytea not null,
    sha256 text not null generated always as (encode(sha256(content), 'hex')) stored,
    primary key (model_version, name)
);

comment on table two_tower.model_files is 'The towers (ONNX) and weights (safetensors) of each version';

-- Weights do not compress; storing them uncompressed makes loading a model faster.
alter table two_tower.model_files alter column content set storage external;

create table two_tower.model_documents (
    model_version text primary key references two_tower.model_versions (version) on delete cascade,
    feature_schema jsonb not null,
    normalizer jsonb not null,
    metrics jsonb not null,
    meta jsonb not null
);

comment on table two_tower.model_documents is 'Feature schema, normalizer, metrics and description of each version';

-- One row per segment of a tower's inputs, as in the feature schema; offsets count from 0.
create table two_tower.model_segments (
    model_version text not null references two_tower.model_versions (version) on delete cascade,
    tower text not null check (tower in ('user', 'item')),
    segment text not null,
    vocabulary text,
    "offset" int not null check ("offset" >= 0),
    size int not null check (size >= 0),
    primary key (model_version, tower, segment)
);

comment on table two_tower.model_segments is 'Segments of the inputs of each tower, by version';

-- The towers as rows, written by COPY before two_tower.register_model() is called, and never changed afterwards (sql/30_inference
-- describes each part). Without a foreign key, since they come first.
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

comment on table two_tower.model_weights is 'The weights of both towers as rows, by version: the engine sql computes vectors from them';

-- The sparse part of a version's score: liking a video adds these weights to the scores of these videos, in addition to its taste. A row
-- for each liked video keeps the other ids in one place, since a list reads those of all videos that a user likes. Like the weights, they
-- are written before their version is registered, and never change afterwards.
create table two_tower.neighbour_lists (
    model_version text not null,
    video_id uuid not null,
    neighbour_ids uuid[] not null,
    weights real[] not null,
    -- The video first: ids are compared faster than names of versions.
    primary key (video_id, model_version),
    check (cardinality(neighbour_ids) = cardinality(weights))
);

comment on table two_tower.neighbour_lists is
'What a like of a video adds to the scores of which others, by version; two_tower.video_neighbours has it by pairs';

-- Ids and weights hardly compress, and are read for every list; up to about 300 of them are in the row itself.
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

-- The encoder's lookup table: segments joined with vocabularies. Positions count from 1, as in a sparsevec.
create table two_tower.model_inputs (
    model_version text not null references two_tower.model_versions (version) on delete cascade,
    tower text not null,
    segment text not null,
    key text not null,
    position int not null,
    primary key (model_version, tower, segment, key)
);

comment on table two_tower.model_inputs is 'The encoder''s lookup table: the position of each key in each segment, by version';

-- Without a foreign key, since the history of a version outlives it.
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
'Every change of state of a model version, with the findings of its gate and whether they were overruled';

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

-- The page and the status see all rows.
create policy two_tower_viewer on two_tower.settings for select to two_tower_viewer using (true);
create policy two_tower_viewer on two_tower.model_versions for select to two_tower_viewer using (true);
create policy two_tower_viewer on two_tower.model_documents for select to two_tower_viewer using (true);
create policy two_tower_viewer on two_tower.neighbour_lists for select to two_tower_viewer using (true);
create policy two_tower_viewer on two_tower.model_events for select to two_tower_viewer using (true);
