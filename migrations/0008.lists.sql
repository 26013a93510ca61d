-- What a list is asked for, and what was shown of it.
-- depends: 0007.change-log

-- What was shown to whom, and where in which list. Append-only, a partition for each day (UTC), made by two_tower.make_impression_day();
-- days older than a setting says are dropped whole. The key serves "what was this user shown lately", too.
--
-- No foreign key: each day's partition would need one, and making it would lock auth.users. Nor to the videos, which an application truncates.
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
'Which list it stood in, as the list itself says; two_tower.was_filtered() tells of it whether filters were asked for';
comment on column two_tower.impressions.propensity is 'How likely it was to stand there; null where the client did not say';

-- Who has been shown anything. This row goes with the user, and what the user was shown goes with this row (forget_impressions()). It is
-- also what a user's own writers hold, so that a user is never given the same page twice.
create table two_tower.impression_users (
    user_id uuid primary key references auth.users (id) on delete cascade
);

comment on table two_tower.impression_users is 'Users who have impressions, which go when this row goes, with the user';

-- Which videos a list may have: any, all and none of tags and performers, any and none of makers and series, and ranges; null asks for
-- nothing. Prices are in single precision, as two_tower.price_of() reads them. filters: by name, as two_tower.set_filter() was told. among: all that pass, where two_tower.compile_filter() found them to be few.
-- by_viewer: only what two_tower.eligible() allows viewer_id, who is null for a visitor.
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
'Which videos a list may have, as it passes between routines; two_tower.passing() says what it means';

-- What a list is asked for, as it passes between routines. kind: own, the caller's, or
-- where service_role asks, of user_id; similar, to video_id; session, from
-- liked and noped; popular; trending, within days.
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

comment on type two_tower.list_question is 'What a list is asked for, as it passes between routines';

-- What an operator says of lists. Filters are objects of the arguments that lists take, and two_tower.check_promotion() refuses others. No key
-- to the videos, as for impressions: of one that is gone nothing is shown.
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
'Which videos lists move up (boost) or down (bury), or have at a rank (pin), and from when to when';
comment on column two_tower.promotions.videos is 'A filter of the videos that are moved, where that is not one';
comment on column two_tower.promotions.segment is
'For whom: lists that start from a video that passes this filter, because its user likes it or asks about it; null for everybody';
comment on column two_tower.promotions.strength is
'By how much ranks are divided (boost) or multiplied (bury); of several that say something of a video, the strongest counts';

-- What exploration shows, drawn once a day by two_tower.draw_exploration().
create table two_tower.exploration_pool (
    video_id uuid primary key,
    shown bigint not null,
    drawn_on date not null
);

comment on table two_tower.exploration_pool is 'The videos that few have been shown, of which exploration shows some today';

alter table two_tower.promotions enable row level security;
alter table two_tower.exploration_pool enable row level security;
alter table two_tower.impressions enable row level security;
alter table two_tower.impression_users enable row level security;

revoke all on two_tower.impressions, two_tower.impression_users, two_tower.promotions, two_tower.exploration_pool
from public, anon, authenticated, service_role;

-- Who looks at the page sees every row.
create policy two_tower_viewer on two_tower.impressions for select to two_tower_viewer using (true);
create policy two_tower_viewer on two_tower.promotions for select to two_tower_viewer using (true);
create policy two_tower_viewer on two_tower.exploration_pool for select to two_tower_viewer using (true);
