create or replace function two_tower.compute_videos(p_video_ids uuid[], p_version text, p_engine text default null)
returns table (video_id uuid, embedding extensions.halfvec)
language sql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select v.video_id, v.embedding
    from (
        select array_agg(e.video_id order by e.video_id) as ids, array_agg(e.input order by e.video_id) as inputs
        from two_tower.encode_videos(p_video_ids, p_version) e
    ) as b
    cross join lateral unnest(b.ids, two_tower.infer(p_version, 'item', b.inputs, p_engine)) as v (video_id, embedding)
    where b.ids is not null
$func$;

comment on function two_tower.compute_videos(uuid[], text, text) is
'Vectors of these videos from the present rows, by the engine of the version or the one named; no row for a video that does not exist';
