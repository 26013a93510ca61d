-- The catalogue: created where it is missing, adopted where the application has it.
-- depends: 0002.extensions

do $tables$
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
            price numeric check (price >= 0 and price < 1e12),
            duration_seconds int check (duration_seconds >= 0),
            distribution_started_at timestamptz,
            product_released_at timestamptz,
            published_at timestamptz,
            created_at timestamptz not null default now()
        );
        -- The newest first, where nobody's taste and no popularity is known.
        create index videos_published_at_idx on public.videos (published_at desc, id);
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
end
$tables$;

do $adoption$
declare
    v_missing text;
begin
    select string_agg('public.' || r.relation || '.' || r.attribute || ' ' || r.type, ', ' order by r.relation, r.attribute)
    into v_missing
    from (values
        ('videos', 'id', 'uuid'), ('videos', 'product_url', 'text'), ('videos', 'title', 'text'), ('videos', 'description', 'text'),
        ('videos', 'maker', 'text'), ('videos', 'label', 'text'), ('videos', 'series', 'text'), ('videos', 'source', 'text'),
        ('videos', 'thumbnail_url', 'text'), ('videos', 'price', 'numeric'), ('videos', 'duration_seconds', 'integer'),
        ('videos', 'distribution_started_at', 'timestamptz'), ('videos', 'product_released_at', 'timestamptz'),
        ('videos', 'published_at', 'timestamptz'), ('videos', 'created_at', 'timestamptz'),
        ('tags', 'id', 'uuid'), ('tags', 'name', 'text'), ('performers', 'id', 'uuid'), ('performers', 'name', 'text'),
        ('video_tags', 'video_id', 'uuid'), ('video_tags', 'tag_id', 'uuid'),
        ('video_performers', 'video_id', 'uuid'), ('video_performers', 'performer_id', 'uuid')
    ) as r (relation, attribute, type)
    where not exists (
        select from pg_catalog.pg_attribute a
        where a.attrelid = to_regclass('public.' || r.relation) and a.attname = r.attribute and not a.attisdropped
            -- An id must be a uuid; other columns may be of any type that compares and casts like the one named.
            and (r.type <> 'uuid' or a.atttypid = 'uuid'::regtype)
    );
    if v_missing is not null then
        raise exception using errcode = '42703',
            message = 'existing tables lack columns that pg-two-tower needs: ' || v_missing,
            hint = 'Add them with alter table ... add column, then migrate again.';
    end if;
end
$adoption$;
