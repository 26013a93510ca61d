-- Requests for lists, and what was shown of them.
-- depends: 0007.change-log

-- What was shown to whom, and at which rank of which list. Append-only, with a partition for each day (UTC), created by
-- two_tower.make_impression_day(); partitions older than a setting are dropped. The key also serves queries for a user's latest
-- impressions.
--
-- No foreign key to users: each day's partition would need one, and creating it would lock auth.users. None to the videos, since an
-- application may truncate them.
create table two_tower.impressions (
    user_id uuid not null,
    shown_at timestamptz not null default now(),
    list_id uuid not null,
    video_id uuid not null,
    rank int not null check (rank > 0),
    model_version text,
    reason text not null,
    propensity real check (propensity > 0 and propensity <= 1),
    primary key (user_id, shown_at, list_id, video_id)
) partition by range (shown_at);

comment on table two_tower.impressions is 'What was shown to whom: written by log_shown() and next_videos(), a partition for each day';
comment on column two_tower.impressions.list_id is
'The id that the list returned; two_tower.was_filtered() says whether the list had filters';
comment on column two_tower.impressions.propensity is 'Probability of the video at this rank; null if the client did not give it';

-- Users with impressions. This row is deleted with the user, and the user's impressions with this row (forget_impressions()). Writers of a
-- user's impressions lock it, so that a user never gets the same page twice.
create table two_tower.impression_users (
    user_id uuid primary key references auth.users (id) on delete cascade
);

comment on table two_tower.impression_users is 'Users with impressions, which are deleted with this row, and this row with the user';

-- Which videos a list may have: any, all and none of tags and performers, any and none of makers and series, and ranges; null filters
-- nothing. Prices are in single precision, as two_tower.price_of() reads them. filters: names defined by two_tower.set_filter(). among: all
-- videos that pass, if they are few and were collected. by_viewer: only videos that two_tower.eligible() allows viewer_id, which is
-- null for a visitor.
create type two_tower.video_filter as (
    tag_ids uuid[],
    all_tag_ids uuid[],
    no_tag_ids uuid[],
    performer_ids uuid[],
    all_performer_ids uuid[],
    no_performer_ids uuid[],
    makers text[],
    no_makers text[],
    series text[],
    no_series text[],
    price_min real,
    price_max real,
    duration_min int,
    duration_max int,
    released_after timestamptz,
    filters text[],
    among uuid[],
    by_viewer boolean,
    viewer_id uuid
);

comment on type two_tower.video_filter is
'Which videos a list may have, as routines pass it; two_tower.passing() defines its meaning';

-- A request for a list, as routines pass it. kind: own, for the caller, or for user_id if service_role asks; similar, to video_id; session,
-- from liked and noped; popular; trending, within days.
create type two_tower.list_question as (
    kind text,
    video_id uuid,
    liked uuid[],
    noped uuid[],
    days int,
    filter two_tower.video_filter,
    excluded uuid[],
    diversity real,
    user_id uuid
);

comment on type two_tower.list_question is 'A request for a list, as routines pass it';

-- Promotions by operators. Filters are objects of the arguments of lists; two_tower.check_promotion() refuses others. No foreign key to the
-- videos, as for impressions: a promotion of a deleted video has no effect.
create table two_tower.promotions (
    id bigint primary key generated always as identity,
    kind text not null constraint promotions_boost_bury_or_pin check (kind in ('boost', 'bury', 'pin')),
    video_id uuid,
    videos jsonb,
    segment jsonb,
    strength real not null default 2 constraint promotions_strength_above_1_up_to_10 check (strength > 1 and strength <= 10),
    rank int constraint promotions_rank_from_1_to_200 check (rank between 1 and 200),
    starts_at timestamptz not null default now(),
    ends_at timestamptz,
    note text,
    constraint promotions_one_video_or_a_filter check ((video_id is null) <> (videos is null)),
    constraint promotions_pins_have_a_video_and_a_rank check (
        case kind when 'pin' then video_id is not null and rank is not null else rank is null end
    ),
    constraint promotions_end_after_they_start check (ends_at > starts_at)
);

comment on table two_tower.promotions is
'Which videos lists move up (boost) or down (bury), or place at a rank (pin), and from when to when';
comment on column two_tower.promotions.videos is 'A filter of the promoted videos, instead of a single one';
comment on column two_tower.promotions.segment is
'Only for lists that start from a video that passes this filter, because its user likes it or asks about it; null for everybody';
comment on column two_tower.promotions.strength is
'Factor by which ranks are divided (boost) or multiplied (bury); of several promotions of a video, the strongest counts';

-- The videos for exploration, drawn once a day by two_tower.draw_exploration().
create table two_tower.exploration_pool (
    video_id uuid primary key,
    shown bigint not null,
    drawn_on date not null
);

comment on table two_tower.exploration_pool is 'Videos that few users have been shown; exploration shows some of them today';

alter table two_tower.promotions enable row level security;
alter table two_tower.exploration_pool enable row level security;
alter table two_tower.impressions enable row level security;
alter table two_tower.impression_users enable row level security;

revoke all on two_tower.impressions, two_tower.impression_users, two_tower.promotions, two_tower.exploration_pool
from public, anon, authenticated, service_role;

-- The page sees all rows.
create policy two_tower_viewer on two_tower.impressions for select to two_tower_viewer using (true);
create policy two_tower_viewer on two_tower.promotions for select to two_tower_viewer using (true);
create policy two_tower_viewer on two_tower.exploration_pool for select to two_tower_viewer using (true);
