-- What users have chosen about themselves.
-- depends: 0008.lists

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

alter table two_tower.user_choices enable row level security;
revoke all on two_tower.user_choices from public, anon, authenticated, service_role;
