drop function if exists two_tower.search_videos(text, extensions.halfvec, int, uuid[], uuid[], int);
-- Exact where that is cheap: among the few that pass a filter, and in a catalogue where two_tower.tune_search() found that to be as fast as
-- the index. By the index otherwise; where a scan ends before enough rows pass the filter, those that pass are looked for and, where they are
-- few, compared exactly; else the scan is done again without an end, which costs more per row, and at last exactly.
--
-- Videos of which nothing is known are in no list by vector: they all have the same.
--
-- The excluded are a sub-select, which is hashed once: "<> all (array)" is planned and compared element by element.
create or replace function two_tower.search_videos(
    p_version text, p_vector extensions.halfvec, p_wanted int, p_excluded uuid[], p_filter two_tower.video_filter,
    p_margin int,
    out ids uuid[], out cosines real[], out among uuid[]
)
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = on
set enable_sort = on
set "hnsw.ef_search" = 1000
set "hnsw.max_scan_tuples" = 50000
set "hnsw.iterative_scan" = 'off'
as $func$
declare
    -- Of a version that was not measured, so many videos are searched exactly.
    c_unmeasured constant int := 20000;
    -- So many are enough unless videos among them may not be shown, and cost a fraction of sorting all.
    c_enough constant int := 2 * p_wanted + cardinality(p_excluded);
    v_exact boolean := p_margin = 0;
    v_ways text[];
    v_way text;
begin
    among := (p_filter).among;
    if p_margin is null then
        -- As many as there were at the last analyze, or when the index was built.
        select c.reltuples <= c_unmeasured into v_exact
        from two_tower.model_versions m
        join pg_catalog.pg_class c on c.oid = to_regclass('two_tower.video_embeddings_' || m.number)
        where m.version = p_version;
    end if;

    v_ways := case
        when among is not null then array['among']
        -- A filter may leave few of the best, and sorting them is most of the work.
        when v_exact and not (p_filter is null) then array['all']
        when v_exact then array['enough', 'all']
        else array['off', 'relaxed_order', 'all']
    end;
    loop
        v_way := v_ways[1];
        v_ways := v_ways[2 :];
        if v_way = 'among' then
            select array_agg(n.video_id order by n.distance, n.video_id), array_agg((1 - n.distance)::real order by n.distance, n.video_id)
            into ids, cosines
            from (
                select e.video_id, e.embedding OPERATOR(extensions.<=>) p_vector as distance
                from unnest(among) as a (id)
                join two_tower.video_embeddings e on e.model_version = p_version and e.video_id = a.id and e.placed
                where e.video_id not in (select unnest(p_excluded))
                    and (select true from two_tower.visible_videos v where v.id = e.video_id)
                order by distance, e.video_id limit p_wanted
            ) as n;
        elsif v_way in ('enough', 'all') then
            perform set_config('enable_seqscan', 'on', true), set_config('enable_sort', 'on', true);
            select array_agg(n.video_id order by n.distance, n.video_id), array_agg((1 - n.distance)::real order by n.distance, n.video_id)
            into ids, cosines
            from (
                select c.video_id, c.distance
                from (
                    select e.video_id, e.embedding OPERATOR(extensions.<=>) p_vector as distance
                    from two_tower.video_embeddings e
                    where e.model_version = p_version and e.placed
                    -- An expression that no index has; and first of all, so that few rows need the checks below.
                    order by (e.embedding OPERATOR(extensions.<=>) p_vector) + 0, e.video_id
                    limit case v_way when 'enough' then c_enough end
                ) as c
                where c.video_id not in (select unnest(p_excluded))
                    and (select true from two_tower.visible_videos v where v.id = c.video_id)
                    and (p_filter is null or (select p.passes from two_tower.passing(p_filter, c.video_id) as p (passes)))
                limit p_wanted
            ) as n;
        else
            if v_way = 'off' then
                perform set_config('hnsw.ef_search', least(1000, p_wanted + cardinality(p_excluded) + coalesce(p_margin, 1000))::text, true);
            end if;
            perform set_config('hnsw.iterative_scan', v_way, true);
            -- A plan for any limit takes it for a large one, and would rather sort.
            perform set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true);
            -- What the index gives is nearly in order. From PostgreSQL 16 on, an aggregate would take its word that it is.
            select array_agg(n.video_id order by n.distance + 0, n.video_id),
                array_agg((1 - n.distance)::real order by n.distance + 0, n.video_id)
            into ids, cosines
            from (
                select e.video_id, e.embedding OPERATOR(extensions.<=>) p_vector as distance
                from two_tower.video_embeddings e
                where e.model_version = p_version and e.placed
                    and e.video_id not in (select unnest(p_excluded))
                    and (select true from two_tower.visible_videos v where v.id = e.video_id)
                    and (p_filter is null or (select p.passes from two_tower.passing(p_filter, e.video_id) as p (passes)))
                order by e.embedding OPERATOR(extensions.<=>) p_vector limit p_wanted
            ) as n;
        end if;
        exit when cardinality(ids) = p_wanted or v_ways = '{}';
        if v_way = 'off' then
            perform set_config('enable_seqscan', 'on', true);
            among := two_tower.few_passing(p_filter);
            if among is not null then
                v_ways := array['among'];
            end if;
        end if;
    end loop;
end
$func$;

comment on function two_tower.search_videos(text, extensions.halfvec, int, uuid[], two_tower.video_filter, int) is
'The visible videos nearest to a vector, less the excluded and those that the filter leaves out, best first, and their cosines. p_margin: '
'how many more the index holds in sight than are wanted or excluded; 0 to compute every distance, null where that was not measured. '
'among: all that pass the filter, where they are few and were looked for';
