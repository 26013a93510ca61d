-- Users' choices about themselves, and filters that the owner has defined.
-- depends: 0009.experiments

-- Users write their own row by public.set_choices(); users without a row have chosen nothing.
create table two_tower.user_choices (
    user_id uuid primary key references auth.users (id) on delete cascade,
    -- Whether lists, features and vectors may use the user's decisions.
    personalised boolean not null default true,
    -- Whether the user's decisions count for others: in training, popularity and trends.
    trained_on boolean not null default true,
    -- Videos of these never appear in the user's lists.
    never_makers text[] not null default '{}',
    never_tag_ids uuid[] not null default '{}',
    never_performer_ids uuid[] not null default '{}',
    updated_at timestamptz not null default now()
);

comment on table two_tower.user_choices is 'Users'' choices about themselves, written by set_choices()';

-- Compiled into two_tower.passing_named(). The conditions are SQL that runs as the owner, so nobody else may write them.
create table two_tower.named_filters (
    name text primary key check (name ~ '^[a-z][a-z0-9_]{0,62}$'),
    condition text not null
);

comment on table two_tower.named_filters is 'Filters of lists by name, defined by two_tower.set_filter()';

-- Compiled into two_tower.profile_keys(). A key is a value of a column of users' profiles, so the owner decides which columns a tower
-- reads.
create table two_tower.profile_inputs (
    name text primary key check (name ~ '^[a-z][a-z0-9_]{0,54}$')
);

comment on table two_tower.profile_inputs is
'Columns of public.profiles that user towers may read, as set by two_tower.set_profile_inputs()';

alter table two_tower.profile_inputs enable row level security;
revoke all on two_tower.profile_inputs from public, anon, authenticated, service_role;
create policy two_tower_viewer on two_tower.profile_inputs for select to two_tower_viewer using (true);

alter table two_tower.named_filters enable row level security;
revoke all on two_tower.named_filters from public, anon, authenticated, service_role;

alter table two_tower.user_choices enable row level security;
revoke all on two_tower.user_choices from public, anon, authenticated, service_role;
