drop function if exists two_tower.gate_recall(text);
-- As recommendations are served, by nearest_videos(): a catalogue that is small enough to be searched exactly loses nothing.
create or replace function two_tower.gate_recall(p_version text, p_sample int default null) returns double precision
language plpgsql stable security invoker
set search_path = pg_catalog, pg_temp
as $func$
declare
    c_k constant int := 20;
    v_size int := coalesce(p_sample, two_tower.model_setting('gate_sample'));
    v_vector extensions.halfvec;
    v_exact bigint;
    v_worst real;
    v_found bigint;
    v_hits bigint := 0;
    v_wanted bigint := 0;
begin
    -- Queries are users' vectors; before anybody has liked anything, those of videos.
    for v_vector in
        select q.embedding
        from (
            (
                select e.embedding from two_tower.user_embeddings e where e.model_version = p_version
                order by hashtextextended(e.user_id::text, 1) limit v_size
            )
            union all
            (
                select e.embedding from two_tower.video_embeddings e where e.model_version = p_version
                order by hashtextextended(e.video_id::text, 1) limit v_size
            )
        ) as q
        limit v_size
    loop
        -- Adding zero keeps the planner off the index. By score and not by id: of equal vectors any will do.
        select count(*), min((1 - n.distance)::real) into v_exact, v_worst
        from (
            select e.embedding OPERATOR(extensions.<=>) v_vector as distance
            from two_tower.video_embeddings e
            join two_tower.visible_videos v on v.id = e.video_id
            where e.model_version = p_version
            order by (e.embedding OPERATOR(extensions.<=>) v_vector) + 0 limit c_k
        ) as n;
        select count(*) filter (where s.score >= v_worst) into v_found
        from two_tower.nearest_videos(p_version, v_vector, c_k, '{}', null, 0) n cross join unnest(n.scores) as s (score);
        v_wanted := v_wanted + v_exact;
        v_hits := v_hits + v_found;
    end loop;
    return case when v_wanted = 0 then 1 else v_hits::double precision / v_wanted end;
end
$func$;

comment on function two_tower.gate_recall(text, int) is
'Share of the 20 exact nearest videos that a version''s lists hold, over a sample of users';
