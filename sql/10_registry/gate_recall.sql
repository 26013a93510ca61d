-- Sequential scans and sorts are off, so that the index answers even where the table is small enough to do without it.
create or replace function two_tower.gate_recall(p_version text) returns double precision
language plpgsql stable security invoker
set search_path = ''
set "enable_seqscan" = off
set "enable_sort" = off
set "enable_bitmapscan" = off
set "hnsw.iterative_scan" = 'relaxed_order'
set "hnsw.ef_search" = 400
as $func$
declare
    c_k constant int := 20;
    v_size int := two_tower.model_setting('gate_sample');
    v_vector extensions.halfvec;
    v_exact bigint;
    v_worst double precision;
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
        -- Adding zero keeps the planner off the index. By distance and not by id: of equal vectors any will do.
        select count(*), max(n.distance) into v_exact, v_worst
        from (
            select e.embedding OPERATOR(extensions.<=>) v_vector as distance
            from two_tower.video_embeddings e where e.model_version = p_version
            order by (e.embedding OPERATOR(extensions.<=>) v_vector) + 0 limit c_k
        ) as n;
        execute format(
            'select count(*) filter (where n.distance <= $3) from ('
            'select e.embedding OPERATOR(extensions.<=>) $1 as distance from two_tower.video_embeddings e '
            'where e.model_version = %L order by e.embedding OPERATOR(extensions.<=>) $1 limit $2) as n', p_version
        ) into v_found using v_vector, c_k, v_worst;
        v_wanted := v_wanted + v_exact;
        v_hits := v_hits + v_found;
    end loop;
    return case when v_wanted = 0 then 1 else v_hits::double precision / v_wanted end;
end
$func$;

comment on function two_tower.gate_recall(text) is
'Share of the 20 exact nearest videos that the index of a version finds, over a sample of users';
