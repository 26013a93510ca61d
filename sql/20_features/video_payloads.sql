-- extra_float_digits: as encode_users.
create or replace function two_tower.video_payloads(p_video_ids uuid[]) returns table (video_id uuid, features jsonb)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp set extra_float_digits = 1
as $func$
    select n.video_id, jsonb_build_object('schema_version', 2) || to_jsonb(n) - 'video_id' || k.keys || jsonb_build_object(
            'content_vectors',
            (select coalesce(jsonb_object_agg(c.encoder, c.vector), '{}') from two_tower.content_vectors c where c.video_id = n.video_id)
        )
    from two_tower.video_numbers(p_video_ids) n
    cross join lateral (
        select jsonb_object_agg(s.segment, case when s.many then to_jsonb(l.keys) else to_jsonb(l.keys[1]) end) as keys
        from two_tower.input_segments() s
        cross join lateral (
            select array(select a.key from two_tower.contents_of(n.video_id) a where a.kind = s.kind order by a.key collate "C") as keys
        ) as l
        where s.tower = 'item' and s.kind not in ('video', 'content_vector')
    ) as k
$func$;

comment on function two_tower.video_payloads(uuid[]) is 'The payload of get_item_embedding_features, for many videos at once';
