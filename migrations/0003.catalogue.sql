-- The catalogue. Missing tables are created; the application's are read as they are, without a change of their policies, grants or rows.
-- depends: 0002.extensions

do $tables$
declare
    v_table text;
begin
    if to_regclass('public.videos') is null then
        create table public.videos (
            id uuid primary key default gen_random_uuid(),
            product_url text not null unique,
            title text not null default '',
            description text,
            maker text,
            label text,
            series text,
            source text,
            thumbnail_url text,
            -- Other pictures: no input of a tower, but shown, and exported for encoders of images.
            image_urls text[] not null default '{}',
            price numeric check (price >= 0 and price < 1e12),
            duration_seconds int check (duration_seconds >= 0),
            distribution_started_at timestamptz,
            product_released_at timestamptz,
            published_at timestamptz default now(),
            created_at timestamptz not null default now()
        );
        -- The newest first, for lists when neither taste nor popularity is known.
        create index videos_published_at_idx on public.videos (published_at desc, id);
        -- For filters that match few videos.
        create index videos_maker_idx on public.videos using hash (maker);
        create index videos_series_idx on public.videos using hash (series);
        create index videos_price_idx on public.videos (price) include (id);
        create index videos_duration_seconds_idx on public.videos (duration_seconds) include (id);
        create index videos_product_released_at_idx on public.videos (product_released_at);
        create index videos_distribution_started_at_idx on public.videos (distribution_started_at);
        insert into two_tower.created_objects values ('table', 'public.videos');
    end if;
    if to_regclass('public.tags') is null then
        create table public.tags (id uuid primary key default gen_random_uuid(), name text not null unique);
        insert into two_tower.created_objects values ('table', 'public.tags');
    end if;
    if to_regclass('public.performers') is null then
        create table public.performers (id uuid primary key default gen_random_uuid(), name text not null unique);
        insert into two_tower.created_objects values ('table', 'public.performers');
    end if;
    if to_regclass('public.video_tags') is null then
        create table public.video_tags (
            video_id uuid not null references public.videos (id) on delete cascade,
            tag_id uuid not null references public.tags (id) on delete cascade,
            primary key (video_id, tag_id)
        );
        create index video_tags_tag_id_idx on public.video_tags (tag_id, video_id);
        insert into two_tower.created_objects values ('table', 'public.video_tags');
    end if;
    if to_regclass('public.video_performers') is null then
        create table public.video_performers (
            video_id uuid not null references public.videos (id) on delete cascade,
            performer_id uuid not null references public.performers (id) on delete cascade,
            primary key (video_id, performer_id)
        );
        create index video_performers_performer_id_idx on public.video_performers (performer_id, video_id);
        insert into two_tower.created_objects values ('table', 'public.video_performers');
    end if;
    -- Everybody may read the catalogue; the application's own server writes it.
    for v_table in select name from two_tower.created_objects where kind = 'table' and starts_with(name, 'public.') loop
        execute 'alter table ' || v_table || ' enable row level security';
        execute 'revoke all on ' || v_table || ' from public, anon, authenticated, service_role';
        execute 'grant select on ' || v_table || ' to anon, authenticated';
        execute 'grant select, insert, update, delete on ' || v_table || ' to service_role';
        execute 'create policy two_tower_catalogue on ' || v_table || ' for select to anon, authenticated using (true)';
        execute 'create policy two_tower_viewer on ' || v_table || ' for select to two_tower_viewer using (true)';
    end loop;
end
$tables$;

-- The condition on which a video is shown. two_tower.set_visible_when() changes it and compiles it into two_tower.visible_videos, which
-- every list reads. It is SQL that runs as the owner, so nobody else may write it.
create table two_tower.catalogue_rule (
    one boolean primary key default true check (one),
    visible_when text not null default 'two_tower.time_of(published_at) <= now()',
    -- Whether the owner has set it, or it is our guess for a table that we did not create.
    stated boolean not null default false,
    -- Which videos may be shown to whom; null if the owner has not set it. two_tower.set_eligible_when() compiles it into
    -- two_tower.eligible().
    eligible_when text
);

comment on table two_tower.catalogue_rule is
'Which videos are shown, and to whom, as set by two_tower.set_visible_when() and two_tower.set_eligible_when()';

insert into two_tower.catalogue_rule default values;

alter table two_tower.catalogue_rule enable row level security;
revoke all on two_tower.catalogue_rule from public, anon, authenticated, service_role;
