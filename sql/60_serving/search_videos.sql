-- Exact where that is cheap: among the videos of selective tags, and in a catalogue where two_tower.tune_search() found that to be as fast as
-- the index. By the index otherwise; a scan that ends before enough rows pass the filter is done again without an end, which costs more per
-- row, and at last exactly.
--
-- Videos of which nothing is known are in no list by vector: they all have the same.
--
-- The excluded are a sub-select, which is hashed once: "<> all (array)" is planned and compared element by element.
create or replace function two_tower.search_videos(
    p_version text, p_vector extensions.halfvec, p_wanted int, p_excluded uuid[], p_tag_ids uuid[], p_margin int,
    out ids uuid[], out cosines real[]
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
    -- Of a version that was not measured, so many videos are searched exactly; so many that carry a tag always are, and looked up one by one.
    c_unmeasured constant int := 20000;
    c_tagged constant int := 5000;
    -- So many are enough unless videos among them may not be shown, and cost a fraction of sorting all.
    c_enough constant int := 2 * p_wanted + cardinality(p_excluded);
    v_exact boolean := p_margin = 0;
    v_way text;
begin
    if p_tag_ids is not null then
        select count(*) <= c_tagged into v_exact
        from (select from public.video_tags t where t.tag_id = any (p_tag_ids) limit c_tagged + 1) as t;
    elsif p_margin is null then
        -- As many as there were at the last analyze, or when the index was built.
        select c.reltuples <= c_unmeasured into v_exact
        from two_tower.model_versions m
        join pg_catalog.pg_class c on c.oid = to_regclass('two_tower.video_embeddings_' || m.number)
        where m.version = p_version;
    end if;

    foreach v_way in array case when v_exact then '{enough, all}' else '{off, relaxed_order, all}'::text[] end loop
        if v_way in ('enough', 'all') then
            perform set_config('enable_seqscan', 'on', true), set_config('enable_sort', 'on', true);
            select array_agg(n.video_id order by n.distance, n.video_id), array_agg((1 - n.distance)::real order by n.distance, n.video_id)
            into ids, cosines
            from (
                select c.video_id, c.distance
                from (
                    select a.video_id, a.distance
                    from (
                        select e.video_id, e.embedding OPERATOR(extensions.<=>) p_vector as distance
                        from two_tower.video_embeddings e
                        where e.model_version = p_version and e.placed and p_tag_ids is null
                        union all
                        select e.video_id, e.embedding OPERATOR(extensions.<=>) p_vector as distance
                        from (
                            select distinct t.video_id from public.video_tags t where p_tag_ids is not null and t.tag_id = any (p_tag_ids)
                        ) as t
                        join two_tower.video_embeddings e on e.model_version = p_version and e.video_id = t.video_id and e.placed
                    ) as a
                    -- An expression that no index has; and first of all, so that few rows need the checks below.
                    order by a.distance + 0, a.video_id
                    limit case v_way when 'enough' then c_enough end
                ) as c
                where c.video_id not in (select unnest(p_excluded))
                    and (select true from two_tower.visible_videos v where v.id = c.video_id)
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
                    -- For few rows; exists() would be hashed, with all that carry a tag.
                    and (p_tag_ids is null or (
                        select true from public.video_tags t where t.video_id = e.video_id and t.tag_id = any (p_tag_ids) limit 1
                    ))
                order by e.embedding OPERATOR(extensions.<=>) p_vector limit p_wanted
            ) as n;
        end if;
        exit when cardinality(ids) = p_wanted;
    end loop;
end
$func$;

comment on function two_tower.search_videos(text, extensions.halfvec, int, uuid[], uuid[], int) is
'The visible videos nearest to a vector, less the excluded and those without any of the tags, best first, and their cosines. p_margin: how '
'many more the index holds in sight than are wanted or excluded; 0 to compute every distance, null where that was not measured';
