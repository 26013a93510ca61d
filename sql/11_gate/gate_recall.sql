drop function if exists two_tower.gate_recall(text);
-- As recommendations are served, by nearest_videos(): with the whole score, and without the user's decided videos.
create or replace function two_tower.gate_recall(p_version text, p_sample int default null) returns double precision
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    c_k constant int := 20;
    v_query record;
    v_exact real[];
    v_hits bigint := 0;
    v_wanted bigint := 0;
begin
    for v_query in
        select q.* from two_tower.search_queries(p_version, coalesce(p_sample, two_tower.model_setting('gate_sample')::int)) q
    loop
        v_exact := two_tower.exact_scores(
            p_version, v_query.vector, c_k, v_query.decided, v_query.liked, v_query.weights, v_query.length
        );
        v_wanted := v_wanted + cardinality(v_exact);
        v_hits := v_hits + (
            select two_tower.count_hits(v_exact, n.scores)
            from two_tower.nearest_videos(
                p_version, v_query.vector, c_k, v_query.decided, null, 0, v_query.liked, v_query.weights, v_query.length
            ) n
        );
    end loop;
    return case when v_wanted = 0 then 1 else v_hits::double precision / v_wanted end;
end
$func$;

comment on function two_tower.gate_recall(text, int) is
'Share of the 20 exact best videos that a version''s lists hold, over a sample of users';
