-- SECURITY DEFINER: whoever may write videos may not write the log. The trigger logs the video; the refresh finds its likers. Columns that may
-- be absent, or of another type: as for decisions.
create or replace function two_tower.log_inserted_videos() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    insert into two_tower.video_changes (video_id)
    select c.id
    from (select '00000000-0000-0000-0000-000000000000'::uuid as id) as absent
    cross join lateral (select two_tower.id_of(id) as id from new_rows) as c
    where c.id is not null;
    return null;
end
$func$;

create or replace function two_tower.log_deleted_videos() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    insert into two_tower.video_changes (video_id)
    select c.id
    from (select '00000000-0000-0000-0000-000000000000'::uuid as id) as absent
    cross join lateral (select two_tower.id_of(id) as id from old_rows) as c
    where c.id is not null;
    return null;
end
$func$;

create or replace function two_tower.log_updated_videos() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    -- Only what the towers read, as they read it: a new thumbnail or publication date changes no vector. Users are counted by what
    -- two_tower.attributes_of() gives and by prices; the rest is the item tower's alone.
    insert into two_tower.video_changes (video_id, reaches_users)
    select d.id, bool_or(d.reaches_users)
    from (
        select c.id,
            sum(sum(c.n)) over (partition by c.id, c.maker, c.label, c.series, c.source, c.price) <> 0 as reaches_users
        from (
            select 1 as n, c.*
            from (
                select '00000000-0000-0000-0000-000000000000'::uuid as id, 'before' as maker, 'before' as label, 'before' as series, 'before' as source, 'before' as title, 'before' as description,
                    1 as price,
                    1 as duration_seconds, date '2000-01-01' as product_released_at, date '2000-01-01' as distribution_started_at
            ) as absent
            cross join lateral (
                select two_tower.id_of(id) as id, two_tower.text_of(maker) collate "C" as maker, two_tower.text_of(label) collate "C" as label,
                    two_tower.text_of(series) collate "C" as series, two_tower.text_of(source) collate "C" as source,
                    two_tower.text_of(title) collate "C" as title, two_tower.text_of(description) collate "C" as description,
                    two_tower.price_of(price) as price, two_tower.duration_of(duration_seconds) as duration,
                    two_tower.time_of(product_released_at) as released_at, two_tower.time_of(distribution_started_at) as started_at
                from old_rows
            ) as c
            union all
            select -1, c.*
            from (
                select '00000000-0000-0000-0000-000000000001'::uuid as id, 'after' as maker, 'after' as label, 'after' as series, 'after' as source, 'after' as title, 'after' as description,
                    2 as price,
                    2 as duration_seconds, date '2000-01-02' as product_released_at, date '2000-01-02' as distribution_started_at
            ) as absent
            cross join lateral (
                select two_tower.id_of(id) as id, two_tower.text_of(maker) collate "C" as maker, two_tower.text_of(label) collate "C" as label,
                    two_tower.text_of(series) collate "C" as series, two_tower.text_of(source) collate "C" as source,
                    two_tower.text_of(title) collate "C" as title, two_tower.text_of(description) collate "C" as description,
                    two_tower.price_of(price) as price, two_tower.duration_of(duration_seconds) as duration,
                    two_tower.time_of(product_released_at) as released_at, two_tower.time_of(distribution_started_at) as started_at
                from new_rows
            ) as c
        ) as c
        where c.id is not null
        group by c.id, c.maker, c.label, c.series, c.source, c.title, c.description, c.price, c.duration, c.released_at, c.started_at
        having sum(c.n) <> 0
    ) as d
    group by d.id;
    return null;
end
$func$;

create or replace function two_tower.log_truncated_videos() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    -- All of them, as the refresh finds them: as for decisions.
    insert into two_tower.video_changes (video_id) values ('00000000-0000-0000-0000-000000000000');
    return null;
end
$func$;

comment on function two_tower.log_inserted_videos() is 'Trigger: logs inserted videos';
comment on function two_tower.log_deleted_videos() is 'Trigger: logs deleted videos';
comment on function two_tower.log_updated_videos() is
'Trigger: logs videos of which an update changed an input, and whether users are made of it';
comment on function two_tower.log_truncated_videos() is 'Trigger: logs every video';
