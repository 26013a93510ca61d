-- SECURITY DEFINER: whoever may write videos may not write the log. The trigger logs the video; the refresh finds its likers.
create or replace function two_tower.log_inserted_videos() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    insert into two_tower.video_changes (video_id) select n.id from new_rows n;
    return null;
end
$func$;

create or replace function two_tower.log_deleted_videos() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    insert into two_tower.video_changes (video_id) select o.id from old_rows o;
    return null;
end
$func$;

create or replace function two_tower.log_updated_videos() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    -- Only the columns that the towers read: a new title, thumbnail or publication date changes no vector.
    insert into two_tower.video_changes (video_id)
    select c.id
    from (
        (select id, maker, label, series, source, price, duration_seconds, product_released_at, distribution_started_at from old_rows
        except select id, maker, label, series, source, price, duration_seconds, product_released_at, distribution_started_at from new_rows)
        union all
        (select id, maker, label, series, source, price, duration_seconds, product_released_at, distribution_started_at from new_rows
        except select id, maker, label, series, source, price, duration_seconds, product_released_at, distribution_started_at from old_rows)
    ) as c
    group by c.id;
    return null;
end
$func$;

create or replace function two_tower.log_truncated_videos() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    -- After a truncate of videos only embeddings know which there were; after one of video_tags, videos does.
    insert into two_tower.video_changes (video_id)
    select v.id from public.videos v
    union
    select e.video_id from two_tower.video_embeddings e;
    return null;
end
$func$;

comment on function two_tower.log_inserted_videos() is 'Trigger: logs inserted videos';
comment on function two_tower.log_deleted_videos() is 'Trigger: logs deleted videos';
comment on function two_tower.log_updated_videos() is 'Trigger: logs videos of which an update changed an input';
comment on function two_tower.log_truncated_videos() is 'Trigger: logs every video';
