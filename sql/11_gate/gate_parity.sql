drop function if exists two_tower.gate_parity(text);
-- A sample by hash of the id: the same at every call, and not the first users in some order. Users and videos with pending changes
-- may differ, and are left out.
create or replace function two_tower.gate_parity(p_version text, p_sample int default null) returns double precision
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_size int := coalesce(p_sample, two_tower.model_setting('gate_sample'));
    -- By the exported towers, where this server can run them.
    v_engine text := case when two_tower.has_onnxruntime() and (
        select count(*) = 2 from two_tower.model_files f where f.model_version = p_version and f.name in ('user_tower.onnx', 'item_tower.onnx')
    ) then 'onnxruntime' end;
    v_users uuid[];
    v_videos uuid[];
begin
    v_videos := array(
        select e.video_id from two_tower.video_embeddings e
        where e.model_version = p_version and not exists (select from two_tower.video_changes c where c.video_id = e.video_id)
        order by hashtextextended(e.video_id::text, 0) limit v_size
    );
    v_users := array(
        select e.user_id from two_tower.user_embeddings e
        where e.model_version = p_version and not exists (select from two_tower.pending_users c where c.user_id = e.user_id)
            and not exists (
                select from two_tower.video_changes c
                join public.user_video_decisions d on d.video_id = c.video_id and d.user_id = e.user_id
            )
        order by hashtextextended(e.user_id::text, 0) limit v_size
    );
    return (
        select coalesce(max(d.distance), 0)
        from (
            select e.embedding OPERATOR(extensions.<=>) s.embedding as distance
            from two_tower.compute_videos(v_videos, p_version, v_engine) e
            join two_tower.video_embeddings s on s.model_version = p_version and s.video_id = e.video_id
            union all
            select c.embedding OPERATOR(extensions.<=>) s.embedding
            from two_tower.define_users(v_users, p_version, v_engine) c
            join two_tower.user_embeddings s on s.model_version = p_version and s.user_id = c.user_id
        ) as d
    );
end
$func$;

comment on function two_tower.gate_parity(text, int) is
'Largest cosine distance, over a sample, between what a version has stored and what it computes now';
