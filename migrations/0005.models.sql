-- The model registry.
-- depends: 0004.decisions-and-features

create table two_tower.settings (
    name text primary key,
    value jsonb not null,
    description text not null
);

comment on table two_tower.settings is 'Settings that operators may change, each with what it means';

insert into two_tower.settings values
('inference_engine', '"onnxruntime"', 'How embeddings are computed inside the server: onnxruntime (PL/Python)'),
('popularity_half_life_days', '90', 'Age, relative to the newest decision, at which a like counts half');

-- States and their transitions:
--   candidate -> staged (gate passed) | rejected (gate failed)
--   staged    -> active (backfilled, full coverage) | retired
--   active    -> standby (another version was activated)
--   standby   -> active (rollback) | retired
-- two_tower.model_transition() enforces them. The row is narrow, because every reader looks up the active version.
create table two_tower.model_versions (
    version text primary key check (version ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    number int generated always as identity unique,
    state text not null default 'candidate'
    check (state in ('candidate', 'rejected', 'staged', 'active', 'standby', 'retired')),
    schema_version int not null,
    user_dim int not null check (user_dim > 0),
    item_dim int not null check (item_dim > 0),
    registered_at timestamptz not null default now(),
    backfilled_at timestamptz,
    activated_at timestamptz
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
