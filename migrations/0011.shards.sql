-- What one of several servers, each with its own users, knows about the others; written by two-tower shards.
-- depends: 0010.rights

-- The version that a shard served when it was last asked, which is all that is known of a shard that is down. When a shard is removed, its
-- counts are deleted with its row.
create table two_tower.shards (
    name text primary key,
    model_version text,
    asked_at timestamptz
);

comment on table two_tower.shards is
'The shards known to two-tower shards, and the model version that each served when it was last asked';
comment on column two_tower.shards.asked_at is 'Null if it was never asked';

-- By shard, so that the counts of a shard that is down stay. as_of: the newest like there, to which scores are relative.
create table two_tower.shard_popularity (
    shard text not null references two_tower.shards (name) on delete cascade,
    -- 0: all time, with a score; otherwise a window of two_tower.video_trends.
    days int not null check (days in (0, 1, 7, 30)),
    video_id uuid not null,
    score double precision not null,
    likers int not null,
    as_of timestamptz not null,
    counted_at timestamptz not null,
    primary key (shard, days, video_id)
);

comment on table two_tower.shard_popularity is
'Likes of users of the other shards, counted there by two_tower.own_popularity(); two_tower.update_popularity() adds them';

alter table two_tower.shards enable row level security;
alter table two_tower.shard_popularity enable row level security;
revoke all on two_tower.shards, two_tower.shard_popularity from public, anon, authenticated, service_role;
