-- SECURITY DEFINER: service_role operates the models without owning the tables.
--
-- Each user's search is widened until it misses nothing, as no wider one would; a width that has missed too much is not tried again.
create or replace function two_tower.tune_search(p_version text) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    c_k constant int := 20;
    -- Computing all distances of so few takes no longer than any index.
    c_few constant int := 5000;
    -- With half as many, a search has to be a third wider before it surely suffices.
    c_users constant int := 400;
    c_margins constant int[] := '{10, 20, 30, 40, 50, 60, 80, 100, 120, 140, 160, 180, 200, 240, 280, 320, 360, 400, 480, 560, 640, 760, 900}';
    c_none constant double precision[] := array_fill(0::double precision, array[cardinality(c_margins)]);
    v_allowed double precision := 1 - two_tower.model_setting('search_min_recall');
    v_query record;
    v_exact real[];
    v_scores real[];
    v_started timestamptz;
    v_wanted bigint := 0;
    v_missed int;
    -- For each margin: places missed, the sum of their squares by user, milliseconds, and searches.
    v_misses double precision[] := c_none;
    v_squares double precision[] := c_none;
    v_times double precision[] := c_none;
    v_runs double precision[] := c_none;
    v_exact_time double precision := 0;
    v_margin int;
    v_time double precision;
begin
    perform two_tower.require_model(p_version);
    if (select count(*) > c_few from (select from two_tower.video_embeddings e where e.model_version = p_version limit c_few + 1) as e) then
        for v_query in
            select q.*, count(*) over () as users, row_number() over () as number
            from two_tower.search_queries(p_version, c_users) q
        loop
            v_started := clock_timestamp();
            -- A margin of 0 computes every distance.
            select n.scores into v_exact
            from two_tower.nearest_videos(
                p_version, v_query.vector, c_k, v_query.decided, null, 0, v_query.liked, v_query.weights, v_query.length, 0
            ) n;
            v_exact_time := v_exact_time + extract(epoch from clock_timestamp() - v_started);
            v_wanted := v_wanted + cardinality(v_exact);
            for v_at in 1 .. cardinality(c_margins) loop
                continue when v_misses[v_at] > v_allowed * c_k * v_query.users;
                v_started := clock_timestamp();
                select n.scores into v_scores
                from two_tower.nearest_videos(
                    p_version, v_query.vector, c_k, v_query.decided, null, 0, v_query.liked, v_query.weights, v_query.length,
                    c_margins[v_at]
                ) n;
                -- The first search of a session plans the statements.
                if v_query.number > 1 then
                    v_times[v_at] := v_times[v_at] + extract(epoch from clock_timestamp() - v_started);
                    v_runs[v_at] := v_runs[v_at] + 1;
                end if;
                v_missed := cardinality(v_exact) - two_tower.count_hits(v_exact, v_scores);
                exit when v_missed = 0;
                v_misses[v_at] := v_misses[v_at] + v_missed;
                v_squares[v_at] := v_squares[v_at] + v_missed ^ 2;
            end loop;
        end loop;
        -- Misses come several to a user, so users are what is counted: two standard errors of their sum, which are at most the root of its squares.
        select m.margin, m.elapsed / nullif(m.runs, 0) into v_margin, v_time
        from unnest(c_margins, v_misses, v_squares, v_times, v_runs) as m (margin, missed, squared, elapsed, runs)
        where m.missed + 2 * sqrt(m.squared) <= v_allowed * v_wanted
        order by m.margin limit 1;
        if v_margin is null or v_exact_time / v_query.users < v_time then
            v_margin := 0;
        end if;
    end if;
    update two_tower.model_versions m set search_margin = v_margin where m.version = p_version and m.search_margin is distinct from v_margin;
    return v_margin;
end
$func$;

comment on function two_tower.tune_search(text) is
'Finds, with the lists of a sample of users, the narrowest search that contains the share search_min_recall of the exact best videos. '
'Stores with the version how many candidates it needs beyond those requested or excluded; 0: every distance is computed; '
'null: too few videos '
'to need measuring. P0002: no such version';
