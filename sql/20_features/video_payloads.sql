-- extra_float_digits: as encode_users.
create or replace function two_tower.video_payloads(p_video_ids uuid[]) returns table (video_id uuid, features jsonb)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp set extra_float_digits = 1
as $func$
    select c.video_id, jsonb_build_object(
        'schema_version', 1,
        'tags', to_jsonb(c.tags),
        'performers', to_jsonb(c.performers),
        'source', c.source,
        'maker', c.maker,
        'label', c.label,
        'series', c.series,
        'price', c.price,
        'duration_seconds', c.duration_seconds,
        'released_days', c.released_days
    )
    from two_tower.count_video_features(p_video_ids) c
$func$;

comment on function two_tower.video_payloads(uuid[]) is 'The payload of get_item_embedding_features, for many videos at once';
