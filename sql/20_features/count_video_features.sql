create or replace function two_tower.count_video_features(p_video_ids uuid[]) returns setof two_tower.video_counts
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select v.id,
        array(select t.tag_id from public.video_tags t where t.video_id = v.id order by t.tag_id),
        array(select p.performer_id from public.video_performers p where p.video_id = v.id order by p.performer_id),
        nullif(v.maker::text collate "C", ''), nullif(v.label::text collate "C", ''), nullif(v.series::text collate "C", ''),
        nullif(v.source::text collate "C", ''),
        two_tower.price_of(v.price),
        two_tower.duration_of(v.duration_seconds),
        -- Days since the epoch of the feature schema (features.EPOCH in the trainer).
        floor(extract(epoch from
            coalesce(two_tower.time_of(v.product_released_at), two_tower.time_of(v.distribution_started_at)) - timestamptz '1900-01-01 00:00+00'
        ) / 86400)::int
    from (select distinct u.id from unnest(p_video_ids) as u (id)) as u
    join public.videos v on v.id = u.id
$func$;

comment on function two_tower.count_video_features(uuid[]) is
'What the item tower reads of each video; no row for a video that does not exist';
