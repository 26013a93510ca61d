-- What users decide, and what is counted of it.
-- depends: 0003.catalogue

do $tables$
begin
    if to_regclass('public.profiles') is null then
        create table public.profiles (
            user_id uuid primary key references auth.users (id) on delete cascade,
            created_at timestamptz not null default now()
        );
        insert into two_tower.created_objects values ('table', 'public.profiles');
    end if;
    if to_regclass('public.user_video_decisions') is null then
        create table public.user_video_decisions (
            user_id uuid not null references auth.users (id) on delete cascade,
            video_id uuid not null references public.videos (id) on delete cascade,
            decision_type text not null check (decision_type in ('like', 'nope', 'skip')),
            created_at timestamptz not null default now(),
            primary key (user_id, video_id)
        );
        -- The likers of a video, when it is re-tagged or deleted.
        create index user_video_decisions_video_id_idx on public.user_video_decisions (video_id);
        insert into two_tower.created_objects values ('table', 'public.user_video_decisions');
    end if;
    if to_regclass('public.user_features') is null then
        create table public.user_features (
            user_id uuid primary key references auth.users (id) on delete cascade,
            liked_tags jsonb not null default '{}',
            liked_performers jsonb not null default '{}',
            updated_at timestamptz not null default now()
        );
        insert into two_tower.created_objects values ('table', 'public.user_features');
    end if;
end
$tables$;

do $adoption$
declare
    v_missing text;
    v_column text;
    v_definition text;
begin
    select string_agg('public.' || r.relation || '.' || r.attribute || ' ' || r.type, ', ' order by r.relation, r.attribute)
    into v_missing
    from (values
        ('profiles', 'user_id', 'uuid'), ('profiles', 'created_at', 'timestamptz'),
        ('user_video_decisions', 'user_id', 'uuid'), ('user_video_decisions', 'video_id', 'uuid'),
        ('user_video_decisions', 'decision_type', 'text'), ('user_video_decisions', 'created_at', 'timestamptz'),
        ('user_features', 'user_id', 'uuid'), ('user_features', 'liked_tags', 'jsonb'),
        ('user_features', 'liked_performers', 'jsonb'), ('user_features', 'updated_at', 'timestamptz')
    ) as r (relation, attribute, type)
    where not exists (
        select from pg_catalog.pg_attribute a
        where a.attrelid = to_regclass('public.' || r.relation) and a.attname = r.attribute and not a.attisdropped
            and (r.type not in ('uuid', 'jsonb') or a.atttypid = r.type::regtype)
    );
    if v_missing is not null then
        raise exception using errcode = '42703',
            message = 'existing tables lack columns that pg-two-tower needs: ' || v_missing,
            hint = 'Add them with alter table ... add column, then migrate again.';
    end if;
    -- The contract lets user_features carry further counts; an adopted table gets those it lacks.
    for v_column, v_definition in
        values ('liked_makers', 'jsonb not null default ''{}'''),
            ('liked_labels', 'jsonb not null default ''{}'''),
            ('liked_series', 'jsonb not null default ''{}'''),
            ('liked_sources', 'jsonb not null default ''{}'''),
            ('liked_video_ids', 'uuid[] not null default ''{}'''),
            ('noped_video_ids', 'uuid[] not null default ''{}'''),
            ('like_count', 'int not null default 0'),
            ('nope_count', 'int not null default 0'),
            ('price_sum', 'double precision not null default 0'),
            ('priced_count', 'int not null default 0')
    loop
        if not exists (
            select from pg_catalog.pg_attribute
            where attrelid = 'public.user_features'::regclass and attname = v_column and not attisdropped
        ) then
            execute 'alter table public.user_features add column ' || v_column || ' ' || v_definition;
            insert into two_tower.created_objects values ('column', 'user_features.' || v_column);
        end if;
    end loop;
end
$adoption$;

-- Star reviews train the model. A reviewer need not be a user; the id is the same where the application's id is the same.
create table two_tower.reviews (
    reviewer_id uuid not null,
    video_id uuid not null references public.videos (id) on delete cascade,
    stars real not null check (stars between 0 and 5),
    created_at timestamptz,
    -- The reviewer, where that is a user: the reviews of one who is deleted must not go on training.
    user_id uuid references auth.users (id) on delete cascade,
    primary key (reviewer_id, video_id)
);

comment on table two_tower.reviews is 'Star reviews to train on, by reviewers who need not be users';

create index reviews_video_id_idx on two_tower.reviews (video_id);

create index reviews_user_id_idx on two_tower.reviews (user_id) where user_id is not null;

-- One user's counts and one video's item features, as they pass between routines.
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

comment on type two_tower.user_counts is 'Raw counts of one user, as they pass between routines';

create type two_tower.video_counts as (
    video_id uuid,
    tags uuid[],
    performers uuid[],
    maker text,
    label text,
    series text,
    source text,
    price double precision,
    duration_seconds int,
    released_days int
);

comment on type two_tower.video_counts is 'What the item tower reads of one video, as it passes between routines';

-- Which of two equally good answers comes first must not depend on chance, and popular videos must be cheap to read.
create table two_tower.video_popularity (
    video_id uuid primary key references public.videos (id) on delete cascade,
    score double precision not null
);

comment on table two_tower.video_popularity is 'Time-decayed likes per video, written by two_tower.update_popularity()';

create index video_popularity_score_idx on two_tower.video_popularity (score desc, video_id);
