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
        select c.video_id, c.embedding from two_tower.compute_videos(video_ids[v_start : v_start + c_batch - 1], v_version) c;
    end loop;
end
$func$;

comment on function two_tower.embed_videos(uuid[], text) is 'Vectors computed from the present rows, without storing them';
