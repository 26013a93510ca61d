-- Users' decisions, and the counts computed from them.
-- depends: 0003.catalogue

do $tables$
declare
    v_features text := 'public';
begin
    if to_regclass('public.profiles') is null then
        create table public.profiles (
            user_id uuid primary key references auth.users (id) on delete cascade,
            created_at timestamptz not null default now()
        );
        insert into two_tower.created_objects values ('table', 'public.profiles');
        alter table public.profiles enable row level security;
        revoke all on public.profiles from public, anon, authenticated, service_role;
        grant select on public.profiles to authenticated;
        grant select, insert, update, delete on public.profiles to service_role;
        create policy two_tower_own on public.profiles for select to authenticated using (user_id = (select auth.uid()));
        create policy two_tower_viewer on public.profiles for select to two_tower_viewer using (true);
    end if;
    if to_regclass('public.user_video_decisions') is null then
        create table public.user_video_decisions (
            -- A client gives only the video and the decision; defaults fill in the rest.
            user_id uuid not null default auth.uid() references auth.users (id) on delete cascade,
            video_id uuid not null references public.videos (id) on delete cascade,
            decision_type text not null check (decision_type in ('like', 'nope', 'skip')),
            created_at timestamptz not null default now(),
            -- Its weight: larger for a purchase than for a like, smaller for a video that was left early. The bounds are those of
            -- two_tower.weight_of().
            weight real not null default 1 check (weight >= 0.01::real and weight <= 10),
            -- A user's decisions are scattered over the table. The index includes the columns that a refresh reads, so it need not read the
            -- table.
            primary key (user_id, video_id) include (decision_type, created_at, weight)
        );
        -- Finds the likers of a video when it is re-tagged or deleted.
        create index user_video_decisions_video_id_idx on public.user_video_decisions (video_id);
        insert into two_tower.created_objects values ('table', 'public.user_video_decisions');
        alter table public.user_video_decisions enable row level security;
        revoke all on public.user_video_decisions from public, anon, authenticated, service_role;
        grant select, insert, update, delete on public.user_video_decisions to authenticated, service_role;
        create policy two_tower_own on public.user_video_decisions for all to authenticated
        using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));
        create policy two_tower_viewer on public.user_video_decisions for select to two_tower_viewer using (true);
    end if;

    -- Our table contains counts that nobody else writes. An application's table of the same name keeps its rows, writers and readers; ours
    -- is then in two_tower, or takes the name if the operator requests it (two-tower migrate --take-names).
    if to_regclass('public.user_features') is not null then
        if coalesce(current_setting('two_tower.take_names', true), '') = 'on' then
            alter table public.user_features rename to user_features_before_two_tower;
            insert into two_tower.created_objects values ('renamed relation', 'public.user_features');
        else
            v_features := 'two_tower';
        end if;
    end if;
    execute 'create table ' || v_features || '.user_features (
        user_id uuid primary key references auth.users (id) on delete cascade,
        liked_tags jsonb not null default ''{}'',
        liked_performers jsonb not null default ''{}'',
        updated_at timestamptz not null default now(),
        liked_makers jsonb not null default ''{}'',
        liked_labels jsonb not null default ''{}'',
        liked_series jsonb not null default ''{}'',
        liked_sources jsonb not null default ''{}'',
        liked_video_ids uuid[] not null default ''{}'',
        noped_video_ids uuid[] not null default ''{}'',
        like_count int not null default 0,
        nope_count int not null default 0,
        price_sum double precision not null default 0,
        priced_count int not null default 0
    )';
    insert into two_tower.created_objects values ('table', v_features || '.user_features');
    execute 'alter table ' || v_features || '.user_features enable row level security';
    execute 'revoke all on ' || v_features || '.user_features from public, anon, authenticated, service_role';
    execute 'grant select on ' || v_features || '.user_features to authenticated, service_role, two_tower_viewer';
    execute 'create policy two_tower_own on ' || v_features || '.user_features for select to authenticated '
        || 'using (user_id = (select auth.uid()))';
    execute 'create policy two_tower_viewer on ' || v_features || '.user_features for select to two_tower_viewer using (true)';
end
$tables$;

-- Star reviews train the model. A reviewer need not be a user. If the application has the same id for both, user_id deletes the reviews
-- with the user. No foreign key to the videos: an application could no longer truncate its table.
create table two_tower.reviews (
    reviewer_id uuid not null,
    video_id uuid not null,
    stars real not null check (stars between 0 and 5),
    created_at timestamptz,
    user_id uuid references auth.users (id) on delete cascade,
    primary key (reviewer_id, video_id),
    check (user_id = reviewer_id)
);

comment on table two_tower.reviews is 'Star reviews to train on, by reviewers who need not be users';
comment on column two_tower.reviews.user_id is 'The reviewer, if that is a user, with whom the review is deleted';

create index reviews_video_id_idx on two_tower.reviews (video_id);
create index reviews_user_id_idx on two_tower.reviews (user_id);

alter table two_tower.reviews enable row level security;

-- Vectors of videos by encoders of images or texts, written by imports or by the application. A refresh deletes those of deleted videos; no
-- foreign key to the videos, as for reviews.
create table two_tower.content_vectors (
    video_id uuid not null,
    encoder text not null check (encoder ~ '^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$'),
    vector real[] not null,
    primary key (video_id, encoder)
);

-- For the list of encoders, and to delete all vectors of one.
create index content_vectors_encoder_idx on two_tower.content_vectors (encoder);

comment on table two_tower.content_vectors is
'Vectors of videos by encoders of images or texts, of length 1: inputs that place a video, from the next training on';
comment on column two_tower.content_vectors.encoder is
'Vectors of the same encoder can be compared; a version reads those of the encoders that it was trained on';

alter table two_tower.content_vectors enable row level security;

-- One user's counts, as routines pass them.
create type two_tower.user_counts as (
    user_id uuid,
    liked_tags jsonb,
    liked_performers jsonb,
    liked_makers jsonb,
    liked_labels jsonb,
    liked_series jsonb,
    liked_sources jsonb,
    liked_video_ids uuid[],
    noped_video_ids uuid[],
    like_count int,
    nope_count int,
    price_sum double precision,
    priced_count int
);

comment on type two_tower.user_counts is 'Raw counts of one user, as routines pass them';

-- Equally good videos must be in a fixed order, and popular videos must be cheap to read.
create table two_tower.video_popularity (
    video_id uuid primary key,
    score double precision not null,
    likers int not null
);

comment on table two_tower.video_popularity is
'Time-decayed likes per video, and the number of its likers, written by two_tower.update_popularity()';

create index video_popularity_score_idx on two_tower.video_popularity (score desc, video_id);

-- How many people liked each video within the last so many days.
create table two_tower.video_trends (
    days int not null check (days in (1, 7, 30)),
    video_id uuid not null,
    likers int not null,
    primary key (days, video_id)
);

comment on table two_tower.video_trends is
'How many people liked each video within the last so many days, written by two_tower.update_popularity()';

create index video_trends_likers_idx on two_tower.video_trends (days, likers desc, video_id);

alter table two_tower.video_popularity enable row level security;
alter table two_tower.video_trends enable row level security;

revoke all on all tables in schema two_tower from public, anon;
revoke all on two_tower.reviews, two_tower.content_vectors, two_tower.video_popularity, two_tower.video_trends
from authenticated, service_role;

-- For the payload of a video, which is read as the caller: only of videos that the caller may read.
create policy two_tower_payload on two_tower.content_vectors for select to authenticated
using (exists (select from public.videos v where v.id = content_vectors.video_id));

-- The page and the status see all rows.
create policy two_tower_viewer on two_tower.video_popularity for select to two_tower_viewer using (true);
create policy two_tower_viewer on two_tower.video_trends for select to two_tower_viewer using (true);
