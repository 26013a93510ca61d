drop function if exists two_tower.count_video_features(uuid[]);
-- What else a video carries, attributes_of() says.
create or replace function two_tower.video_numbers(p_video_ids uuid[])
returns table (video_id uuid, price double precision, duration_seconds int, released_days int)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select v.id,
        two_tower.price_of(v.price),
        two_tower.duration_of(v.duration_seconds),
        -- Days since the epoch of the feature schema (features.EPOCH in the trainer).
        floor(extract(epoch from
            coalesce(two_tower.time_of(v.product_released_at), two_tower.time_of(v.distribution_started_at)) - timestamptz '1900-01-01 00:00+00'
        ) / 86400)::int
    from (select distinct u.id from unnest(p_video_ids) as u (id)) as u
    join public.videos v on v.id = u.id
$func$;

comment on function two_tower.video_numbers(uuid[]) is
'The numbers that the item tower reads of each video; no row for a video that does not exist';
