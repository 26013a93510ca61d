-- What users have chosen about themselves, and filters that the owner has defined.
-- depends: 0009.experiments

-- Users write their own row by public.set_choices(); who has none has chosen nothing.
create table two_tower.user_choices (
    user_id uuid primary key references auth.users (id) on delete cascade,
    -- Whether lists, features and vectors may be made of what the user decided.
    personalised boolean not null default true,
    -- Whether what the user decided counts for others: in training, popularity and trends.
    trained_on boolean not null default true,
    -- What no list may show to the user.
    never_makers text[] not null default '{}',
    never_tag_ids uuid[] not null default '{}',
    never_performer_ids uuid[] not null default '{}',
    updated_at timestamptz not null default now()
);

comment on table two_tower.user_choices is 'What users have chosen about themselves, written by set_choices()';

-- Compiled into two_tower.passing_named(). The conditions are SQL that runs as the owner, so nobody else may write them.
create table two_tower.named_filters (
    name text primary key check (name ~ '^[a-z][a-z0-9_]{0,62}$'),
    condition text not null
);

comment on table two_tower.named_filters is 'Filters of lists by name, as two_tower.set_filter() was told';

-- Compiled into two_tower.profile_keys(). A key is what a column of somebody's profile holds, so which columns a tower reads is the owner's
-- to say.
create table two_tower.profile_inputs (
    name text primary key check (name ~ '^[a-z][a-z0-9_]{0,54}$')
);

comment on table two_tower.profile_inputs is
'Columns of public.profiles that user towers may read, as two_tower.set_profile_inputs() was told';

alter table two_tower.profile_inputs enable row level security;
revoke all on two_tower.profile_inputs from public, anon, authenticated, service_role;
create policy two_tower_viewer on two_tower.profile_inputs for select to two_tower_viewer using (true);

alter table two_tower.named_filters enable row level security;
revoke all on two_tower.named_filters from public, anon, authenticated, service_role;

alter table two_tower.user_choices enable row level security;
revoke all on two_tower.user_choices from public, anon, authenticated, service_role;
