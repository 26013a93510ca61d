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
comment on column two_tower.impressions.list_id is 'Which list it stood in, as the list itself says';
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

alter table two_tower.impressions enable row level security;
alter table two_tower.impression_users enable row level security;

revoke all on two_tower.impressions, two_tower.impression_users from public, anon, authenticated, service_role;

-- Who looks at the page sees every row.
create policy two_tower_viewer on two_tower.impressions for select to two_tower_viewer using (true);
