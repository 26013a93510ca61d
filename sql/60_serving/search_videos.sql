drop function if exists two_tower.search_videos(text, extensions.halfvec, int, uuid[], uuid[], int);
drop function if exists two_tower.search_videos(text, extensions.halfvec, int, uuid[], two_tower.video_filter, int);
-- Exact if that is cheap: among the few that pass a filter, and in a catalogue for which two_tower.tune_search() found it as fast as
-- the index. Otherwise by the index, which continues until enough rows pass the filter. If so few pass that this would take long, those that
-- pass are collected, and compared exactly if they are few; in the end all are compared.
-- Videos of which nothing is known are in no list by vector, since all have the same vector.
--
-- The excluded are a sub-select, which is hashed once: "<> all (array)" is planned and compared element by element.
create or replace function two_tower.search_videos(
    p_version text, p_vector extensions.halfvec, p_wanted int, p_excluded uuid[], p_filter two_tower.video_filter,
    p_margin int, p_near int default null,
    out ids uuid[], out cosines real[], out among uuid[]
)
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
-- A plan for any limit takes it for a large one, and would rather sort than go by the index.
set enable_seqscan = off
set enable_sort = off
set "hnsw.ef_search" = 1000
set "hnsw.max_scan_tuples" = 50000
set "hnsw.iterative_scan" = 'off'
as $func$
declare
    -- Of a version that was not measured, so many videos are searched exactly.
    c_unmeasured constant int := 20000;
    -- So many are enough unless videos among them may not be shown, and cost a fraction of sorting all.
    c_enough constant int := 2 * p_wanted + cardinality(p_excluded);
    c_near constant int := coalesce(p_near, cardinality(p_excluded));
    c_width constant int := least(1000, p_wanted + c_near + coalesce(p_margin, 1000));
    v_exact boolean := p_margin = 0;
    v_share real;
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

    if among is null and not (p_filter is null) then
        if not v_exact and cardinality(p_excluded) >= 20 then
            -- What one decided on says how many of the videos near one's taste pass.
            select count(p.passes)::real / count(*) into v_share
            from unnest(p_excluded[: 40]) as d (id)
            left join lateral two_tower.passing(p_filter, d.id) as p (passes) on true;
        end if;
        if (v_share >= 0.05) is not true then
            among := two_tower.few_by_index(p_filter);
        end if;
    end if;
    v_ways := case
        when among is not null then array['among']
        -- A filter may leave few of the best, and sorting them is most of the work.
        when v_exact and not (p_filter is null) then array['all']
        when v_exact then array['enough', 'all']
        when v_share * (c_width - c_near) >= 1.3 * p_wanted then array['once', 'glance']
        when not (p_filter is null) then array['glance']
        -- A scan that may go on remembers what it leaves, and takes a fifth to a third longer for it.
        else array['once', 'index', 'all']
    end;
    loop
        v_way := v_ways[1];
        v_ways := v_ways[2 :];
        if v_way = 'few' then
            among := two_tower.few_passing(p_filter);
            continue when among is null;
            v_way := 'among';
            v_ways := '{}';
        end if;
        if v_way in ('among', 'enough', 'all') then
            perform set_config('enable_seqscan', 'on', true), set_config('enable_sort', 'on', true);
        else
            perform set_config('hnsw.ef_search', c_width::text, true);
            if v_way <> 'once' then
                perform set_config('hnsw.iterative_scan', 'relaxed_order', true),
                    set_config('hnsw.max_scan_tuples', case v_way when 'glance' then '2000' else '50000' end, true);
            end if;
        end if;
        -- Distances that are to be computed have a zero added: that is an expression which no index has.
        if v_way = 'among' then
            select array_agg(n.video_id order by n.distance, n.video_id), array_agg((1 - n.distance)::real order by n.distance, n.video_id)
            into ids, cosines
            from (
                select c.video_id, c.distance
                from (
                    select e.video_id, (e.embedding OPERATOR(extensions.<=>) p_vector) + 0 as distance
                    from two_tower.video_embeddings e
                    where e.model_version = p_version and e.video_id = any (search_videos.among) and e.placed
                        and e.video_id not in (select unnest(p_excluded))
                    -- First of all, so that few rows need the check below.
                    order by distance, e.video_id
                    offset 0
                ) as c
                where (select true from two_tower.visible_videos v where v.id = c.video_id)
                limit p_wanted
            ) as n;
        elsif v_way in ('enough', 'all') then
            select array_agg(n.video_id order by n.distance, n.video_id), array_agg((1 - n.distance)::real order by n.distance, n.video_id)
            into ids, cosines
            from (
                select c.video_id, c.distance
                from (
                    select e.video_id, (e.embedding OPERATOR(extensions.<=>) p_vector) + 0 as distance
                    from two_tower.video_embeddings e
                    where e.model_version = p_version and e.placed
                    -- As above.
                    order by distance, e.video_id
                    limit case v_way when 'enough' then c_enough end
                ) as c
                where c.video_id not in (select unnest(p_excluded))
                    and (select true from two_tower.visible_videos v where v.id = c.video_id)
                    and (p_filter is null or (select p.passes from two_tower.passing(p_filter, c.video_id) as p (passes)))
                limit p_wanted
            ) as n;
        -- What the index gives is nearly in order. From PostgreSQL 16 on, an aggregate would take its word that it is.
        elsif p_filter is null then
            -- To begin a statement with all that a filter may ask for takes as long as some of what it finds.
            select array_agg(n.video_id order by n.distance + 0, n.video_id),
                array_agg((1 - n.distance)::real order by n.distance + 0, n.video_id)
            into ids, cosines
            from (
                select e.video_id, e.embedding OPERATOR(extensions.<=>) p_vector as distance
                from two_tower.video_embeddings e
                where e.model_version = p_version and e.placed
                    and e.video_id not in (select unnest(p_excluded))
                    and (select true from two_tower.visible_videos v where v.id = e.video_id)
                order by e.embedding OPERATOR(extensions.<=>) p_vector limit p_wanted
            ) as n;
        else
            select array_agg(n.video_id order by n.distance + 0, n.video_id),
                array_agg((1 - n.distance)::real order by n.distance + 0, n.video_id)
            into ids, cosines
            from (
                select c.video_id, c.distance
                from (
                    select e.video_id, e.embedding OPERATOR(extensions.<=>) p_vector as distance
                    from two_tower.video_embeddings e
                    -- Joined, it costs a fraction of a sub-select, whose every condition is begun anew for each row.
                    cross join lateral two_tower.passing(p_filter, e.video_id) as p (passes)
                    where e.model_version = p_version and e.placed
                        and e.video_id not in (select unnest(p_excluded))
                    order by e.embedding OPERATOR(extensions.<=>) p_vector
                    -- Whether it is visible is asked of the few that pass.
                    offset 0
                ) as c
                where (select true from two_tower.visible_videos v where v.id = c.video_id)
                limit p_wanted
            ) as n;
        end if;
        exit when cardinality(ids) = p_wanted;
        if v_way = 'glance' then
            -- To find one in a thousand, the index looks at 20,000 for a page, which takes as long as to ask a hundred thousand whether they
            -- pass.
            v_ways := case when cardinality(ids) >= 2 then array['index', 'few', 'all'] else array['few', 'index', 'all'] end;
        end if;
        exit when v_ways = '{}';
    end loop;
end
$func$;

comment on function two_tower.search_videos(text, extensions.halfvec, int, uuid[], two_tower.video_filter, int, int) is
'The visible videos nearest to a vector, without the excluded and those that do not pass the filter, best first, and their '
'cosines. p_margin: '
'how many candidates the index search keeps beyond those wanted or near; 0 to compute every distance, null if it was not measured. p_near: '
'how many of the excluded are likely to be near, all if null. among: all that pass the filter, if they are few and were collected';
