-- An application on Supabase, as its developers would make it in the SQL editor: by postgres, with policies and grants of its own.

-- ------------------------------------------------------------------------------------------------ users

-- The profiles of Supabase's template "User Management Starter", and the trigger that fills them.
create table public.profiles (
    id uuid primary key references auth.users on delete cascade,
    updated_at timestamptz,
    username text unique check (char_length(username) >= 3),
    full_name text,
    avatar_url text
);
alter table public.profiles enable row level security;
create policy "Anybody sees profiles" on public.profiles for select using (true);
create policy "Users write their profile" on public.profiles for insert with check ((select auth.uid()) = id);
create policy "Users change their profile" on public.profiles for update using ((select auth.uid()) = id);
comment on table public.profiles is 'What users say of themselves';

create function public.handle_new_user() returns trigger language plpgsql security definer set search_path = '' as $func$
begin
    insert into public.profiles (id, full_name, avatar_url)
    values (new.id, new.raw_user_meta_data ->> 'full_name', new.raw_user_meta_data ->> 'avatar_url');
    return new;
end
$func$;
create trigger on_auth_user_created after insert on auth.users for each row execute function public.handle_new_user();

create function public.touch() returns trigger language plpgsql set search_path = '' as $func$
begin
    new.updated_at := '2025-06-01';
    return new;
end
$func$;
create trigger touch before update on public.profiles for each row execute function public.touch();

-- ------------------------------------------------------------------------------------------------ the catalogue

create table public.videos (
    id uuid primary key default gen_random_uuid(),
    product_url text not null unique,
    title text not null,
    description text,
    maker text,
    label text,
    series text,
    source text,
    thumbnail_url text,
    price numeric(10, 2) check (price >= 0),
    duration_seconds int,
    distribution_started_at timestamptz,
    product_released_at timestamptz,
    published_at timestamptz,
    created_at timestamptz not null default '2025-01-01',
    status text not null default 'draft' check (status in ('draft', 'published', 'withdrawn')),
    internal_notes text,
    slug text generated always as (lower(replace(title, ' ', '-'))) stored
);
create index videos_shown_idx on public.videos (published_at desc) where status = 'published';
alter table public.videos enable row level security;
create policy "Published videos are public" on public.videos for select to anon, authenticated
using (status = 'published' and published_at <= now());
comment on policy "Published videos are public" on public.videos is 'Drafts are for editors';
comment on column public.videos.internal_notes is 'For editors; no client may read it';
revoke all on public.videos from anon, authenticated;
grant select (
    id, product_url, title, description, maker, label, series, source, thumbnail_url, price, duration_seconds,
    distribution_started_at, product_released_at, published_at, created_at, status, slug
) on public.videos to anon, authenticated;

create table public.tags (id uuid primary key, name text not null unique, colour text);
alter table public.tags enable row level security;
create policy "Anybody sees tags" on public.tags for select to anon, authenticated using (true);
revoke insert, update, delete, truncate on public.tags from anon, authenticated;

-- Guarded by its grants alone.
create table public.performers (id uuid primary key, name text not null);
revoke all on public.performers from anon, authenticated;
grant select on public.performers to anon, authenticated;

-- Visible where the video is.
create table public.video_tags (
    video_id uuid not null references public.videos on delete cascade,
    tag_id uuid not null references public.tags on delete cascade,
    primary key (video_id, tag_id)
);
create index video_tags_tag_id_idx on public.video_tags (tag_id);
alter table public.video_tags enable row level security;
create policy "Tags of videos one sees" on public.video_tags for select to anon, authenticated
using (exists (select from public.videos v where v.id = video_tags.video_id));
revoke insert, update, delete, truncate on public.video_tags from anon, authenticated;

-- For service_role alone, which no policy stops.
create table public.video_performers (
    video_id uuid not null references public.videos on delete cascade,
    performer_id uuid not null references public.performers on delete cascade,
    primary key (video_id, performer_id)
);
create index video_performers_performer_id_idx on public.video_performers (performer_id);
alter table public.video_performers enable row level security;

-- ------------------------------------------------------------------------------------------------ what users decide

create table public.user_video_decisions (
    user_id uuid not null references auth.users on delete cascade,
    video_id uuid not null references public.videos on delete cascade,
    decision_type text not null check (decision_type in ('like', 'nope', 'skip')),
    created_at timestamptz not null default '2025-03-01',
    device text,
    primary key (user_id, video_id)
);
create index user_video_decisions_video_id_idx on public.user_video_decisions (video_id);
alter table public.user_video_decisions enable row level security;
create policy "Own decisions" on public.user_video_decisions for select to authenticated using (user_id = (select auth.uid()));
create policy "Decide" on public.user_video_decisions for insert to authenticated with check (user_id = (select auth.uid()));
create policy "Change one's mind" on public.user_video_decisions for update to authenticated
using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));
comment on table public.user_video_decisions is 'Nobody deletes decisions: there is no policy for it';

create table public.watch_events (
    id bigint generated always as identity primary key,
    user_id uuid not null references auth.users on delete cascade,
    video_id uuid not null references public.videos on delete cascade,
    seconds int not null
);
create index watch_events_user_id_idx on public.watch_events (user_id);
create index watch_events_video_id_idx on public.watch_events (video_id);
alter table public.watch_events enable row level security;
create policy "Watch" on public.watch_events for insert to authenticated with check (user_id = (select auth.uid()));
grant select on public.watch_events to anon;

-- ------------------------------------------------------------------------------------------------ a recommender of their own

create table public.user_features (
    user_id uuid primary key references auth.users on delete cascade,
    liked_tags jsonb not null default '{}',
    liked_performers jsonb not null default '{}',
    updated_at timestamptz not null default '2025-04-01'
);
alter table public.user_features enable row level security;
create policy "Own features" on public.user_features to authenticated
using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));

create table public.user_embeddings (
    user_id uuid primary key references auth.users on delete cascade,
    embedding extensions.vector(128) not null,
    updated_at timestamptz not null default '2025-04-01'
);
alter table public.user_embeddings enable row level security;
create policy "Own vector" on public.user_embeddings for select to authenticated using (user_id = (select auth.uid()));

create table public.video_embeddings (
    video_id uuid primary key references public.videos on delete cascade,
    embedding extensions.vector(128) not null,
    updated_at timestamptz not null default '2025-04-01'
);
create index video_embeddings_nearest_idx on public.video_embeddings using hnsw (embedding extensions.vector_cosine_ops);
alter table public.video_embeddings enable row level security;
create policy "Vectors of videos" on public.video_embeddings for select to authenticated using (true);
comment on table public.video_embeddings is 'Written by the nightly job, as service_role';

create function public.recommend_videos(p_user uuid, p_limit int) returns setof uuid
language sql stable set search_path = '' as $func$
    select v.id from public.videos v
    where not exists (select from public.user_video_decisions d where d.user_id = p_user and d.video_id = v.id)
    order by v.published_at desc, v.id
    limit p_limit
$func$;
create function public.similar_videos(p_slug text) returns setof uuid language sql stable set search_path = '' as $func$
    select o.id from public.videos v join public.videos o on o.maker = v.maker and o.id <> v.id
    where v.slug = p_slug
    order by o.id
$func$;
create function public.get_user_embedding_features(p_email text) returns jsonb
language sql stable security definer set search_path = '' as $func$
    select to_jsonb(f) from public.user_features f join auth.users u on u.id = f.user_id
    where u.email = p_email and u.id = (select auth.uid())
$func$;
revoke all on function public.recommend_videos(uuid, int), public.similar_videos(text),
public.get_user_embedding_features(text) from public, anon;
comment on function public.similar_videos(text) is 'By the same maker';

create view public.liked_titles with (security_invoker = on) as
select d.user_id, v.id, v.title from public.user_video_decisions d join public.videos v on v.id = d.video_id
where d.decision_type = 'like';
create view public.embedded_videos with (security_invoker = on) as
select v.id, v.title, e.updated_at from public.video_embeddings e join public.videos v on v.id = e.video_id;

alter publication supabase_realtime add table public.videos, public.user_video_decisions;
