-- SECURITY DEFINER: service_role may embed, and need not be able to read model files for that.
create or replace function two_tower.embed_videos(video_ids uuid[], version text default null)
returns table (video_id uuid, embedding extensions.halfvec)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    c_batch constant int := 1000;
    v_version text := two_tower.require_model(version);
begin
    for v_start in 1 .. coalesce(cardinality(video_ids), 0) by c_batch loop
        return query
        select v.video_id, v.embedding
        from (
            select array_agg(e.video_id order by e.video_id) as ids, array_agg(e.input order by e.video_id) as inputs
            from two_tower.encode_videos(
                array(select c from two_tower.count_video_features(video_ids[v_start : v_start + c_batch - 1]) c), v_version
            ) e
        ) b
        cross join lateral unnest(b.ids, two_tower.infer(v_version, 'item', b.inputs)) as v (video_id, embedding)
        where b.ids is not null;
    end loop;
end
$func$;

comment on function two_tower.embed_videos(uuid[], text) is 'Vectors computed from the rows as they are, without storing them';
