create or replace function two_tower.refresh_videos(p_video_ids uuid[], p_versions text[] default null, p_force boolean default false)
returns int
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_counts two_tower.video_counts[] := array(select c from two_tower.count_video_features(p_video_ids) c);
    v_version text;
    v_rows int;
    v_total int := 0;
begin
    foreach v_version in array coalesce(p_versions, two_tower.live_versions()) loop
        delete from two_tower.video_embeddings e
        where e.model_version = v_version and e.video_id = any (p_video_ids)
            and not exists (select from unnest(v_counts) c where c.video_id = e.video_id);
        with encoded as materialized (
            select e.video_id, e.input, sha256(extensions.sparsevec_send(e.input)) as hash
            from two_tower.encode_videos(v_counts, v_version) e
        ),
        changed as materialized (
            select e.video_id, e.input, e.hash
            from encoded e
            left join two_tower.video_embeddings s on s.model_version = v_version and s.video_id = e.video_id
            where p_force or s.input_hash is distinct from e.hash
        ),
        packed as (
            select array_agg(c.video_id order by c.video_id) as ids, array_agg(c.hash order by c.video_id) as hashes,
                array_agg(c.input order by c.video_id) as inputs
            from changed c having count(*) > 0
        )
        insert into two_tower.video_embeddings as s (model_version, video_id, embedding, input_hash)
        select v_version, v.video_id, v.embedding, v.hash
        from packed p
        cross join lateral unnest(p.ids, p.hashes, two_tower.infer(v_version, 'item', p.inputs)) as v (video_id, hash, embedding)
        on conflict (model_version, video_id) do update
        set embedding = excluded.embedding, input_hash = excluded.input_hash, updated_at = now()
        where s.input_hash <> excluded.input_hash or s.embedding OPERATOR(extensions.<>) excluded.embedding;
        get diagnostics v_rows = row_count;
        v_total := v_total + v_rows;
    end loop;
    return v_total;
end
$func$;

comment on function two_tower.refresh_videos(uuid[], text[], boolean) is
'Makes the vectors of these videos what their rows say; the number of vectors written. The caller holds their locks';
