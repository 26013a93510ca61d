-- What one of several servers, each with its own users, knows of the others: two-tower shards writes it.
-- depends: 0010.rights

-- Which version a shard served when it was asked last, which is what there is to say of one that is down. The row of a shard that is no
-- longer named takes with it what was counted there.
create table two_tower.shards (
    name text primary key,
    model_version text,
    asked_at timestamptz
);

comment on table two_tower.shards is
'The shards that two-tower shards was told of, and which model version each served when it was asked last';
comment on column two_tower.shards.asked_at is 'Null where it never was';

-- Kept by shard, so that one that is down still counts as it did. as_of: the newest like there, to which scores are relative.
create table two_tower.shard_popularity (
    shard text not null references two_tower.shards (name) on delete cascade,
    -- 0: of all time, with a score; else a window of two_tower.video_trends.
    days int not null check (days in (0, 1, 7, 30)),
    video_id uuid not null,
    score double precision not null,
    likers int not null,
    as_of timestamptz not null,
    counted_at timestamptz not null,
    primary key (shard, days, video_id)
);

comment on table two_tower.shard_popularity is
'What users of the other shards like, as two_tower.own_popularity() counted it there: two_tower.update_popularity() adds it';

alter table two_tower.shards enable row level security;
alter table two_tower.shard_popularity enable row level security;
revoke all on two_tower.shards, two_tower.shard_popularity from public, anon, authenticated, service_role;
