-- SECURITY DEFINER: service_role operates the models without owning the tables.
--
-- Every width is tried for every query, after one for which nothing is timed: it plans the statements.
create or replace function two_tower.tune_search(p_version text) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    c_k constant int := 20;
    -- Computing all distances of so few takes no longer than any index.
    c_few constant int := 5000;
    -- 0 computes all of them.
    c_margins constant int[] := '{0, 10, 20, 30, 40, 60, 80, 120, 160, 240, 320, 400, 480, 560, 640, 760, 900}';
    v_least double precision := two_tower.model_setting('search_min_recall');
    v_query record;
    v_exact real[];
    v_scores real[];
    v_started timestamptz;
    v_timed boolean := false;
    v_wanted bigint := 0;
    v_hits bigint[] := array_fill(0, array[cardinality(c_margins)]);
    v_times interval[] := array_fill(interval '0', array[cardinality(c_margins)]);
    v_margin int;
    v_elapsed interval;
begin
    perform two_tower.require_model(p_version);
    if (select count(*) > c_few from (select from two_tower.video_embeddings e where e.model_version = p_version limit c_few + 1) as e) then
        for v_query in
            select q.* from two_tower.search_queries(p_version, two_tower.model_setting('gate_sample')::int) q
        loop
            v_exact := two_tower.exact_scores(
                p_version, v_query.vector, c_k, v_query.decided, v_query.liked, v_query.weights, v_query.length
            );
            v_wanted := v_wanted + cardinality(v_exact);
            for v_at in 1 .. cardinality(c_margins) loop
                v_started := clock_timestamp();
                select n.scores into v_scores
                from two_tower.nearest_videos(
                    p_version, v_query.vector, c_k, v_query.decided, null, 0, v_query.liked, v_query.weights, v_query.length,
                    c_margins[v_at]
                ) n;
                if v_timed then
                    v_times[v_at] := v_times[v_at] + (clock_timestamp() - v_started);
                end if;
                v_hits[v_at] := v_hits[v_at] + two_tower.count_hits(v_exact, v_scores);
            end loop;
            v_timed := true;
        end loop;
        -- The least that finds enough, even if other users missed three standard errors more: misses come several to a user.
        select m.margin, m.elapsed into v_margin, v_elapsed
        from unnest(c_margins, v_hits, v_times) as m (margin, hits, elapsed)
        where m.margin > 0 and v_wanted - m.hits + 3 * sqrt(v_wanted - m.hits) <= (1 - v_least) * v_wanted
        order by m.margin limit 1;
        if v_margin is null or v_times[1] < v_elapsed then
            v_margin := 0;
        end if;
    end if;
    update two_tower.model_versions m set search_margin = v_margin where m.version = p_version and m.search_margin is distinct from v_margin;
    return v_margin;
end
$func$;

comment on function two_tower.tune_search(text) is
'Finds, by the lists of a sample of users, the narrowest search that holds the share search_min_recall of the exact best videos, and keeps '
'with the version how many more candidates than are wanted or excluded that takes; 0: every distance is computed; null: of so few videos '
'that nothing need be measured. P0002: no such version';
