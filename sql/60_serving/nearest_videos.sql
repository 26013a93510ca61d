drop function if exists two_tower.nearest_list(text, extensions.halfvec, int, uuid[], uuid[], real);
drop function if exists two_tower.nearest_videos(text, extensions.halfvec, int, uuid[], uuid[]);

-- Exact where that is cheap: among the videos of selective tags, and in a small catalogue. By the index otherwise; a scan that ends
-- before enough rows pass the filter is done again without an end, which costs more per row, and at last exactly.
--
-- The excluded are a sub-select, which is hashed once: "<> all (array)" is planned and compared element by element.
create or replace function two_tower.nearest_videos(
    p_version text, p_vector extensions.halfvec, p_limit int, p_excluded uuid[], p_tag_ids uuid[], p_diversity real,
    out ids uuid[], out scores real[]
)
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, pg_temp
-- The most there is: a list begins below all that the user has decided on, which is most of what is nearest.
set "hnsw.ef_search" = 1000
set "hnsw.max_scan_tuples" = 50000
set "hnsw.iterative_scan" = 'off'
as $func$
declare
    -- Up to so many videos, or so many that carry a tag and are looked up one by one, every distance is computed as fast as an index
    -- scan of equal recall.
    c_small constant int := 20000;
    c_tagged constant int := 5000;
    -- Diversity chooses among a few times as many as are asked for.
    c_wanted constant int := case when p_diversity > 0 then 5 * p_limit else p_limit end;
    -- So many are enough unless videos among them may not be shown, and cost a fraction of sorting all.
    c_enough constant int := 2 * c_wanted + cardinality(p_excluded);
    v_few boolean;
    v_way text;
begin
    if p_tag_ids is null then
        -- As many as there were at the last analyze, or when the index was built.
        select c.reltuples <= c_small into v_few
        from two_tower.model_versions m
        join pg_catalog.pg_class c on c.oid = to_regclass('two_tower.video_embeddings_' || m.number)
        where m.version = p_version;
    else
        select count(*) <= c_tagged into v_few
        from (select from public.video_tags t where t.tag_id = any (p_tag_ids) limit c_tagged + 1) as t;
    end if;

    foreach v_way in array case when v_few then '{enough, all}' else '{off, relaxed_order, all}'::text[] end loop
        if v_way in ('enough', 'all') then
            select array_agg(n.video_id order by n.distance, n.video_id), array_agg((1 - n.distance)::real order by n.distance, n.video_id)
            into ids, scores
            from (
                select c.video_id, c.distance
                from (
                    select a.video_id, a.distance
                    from (
                        select e.video_id, e.embedding OPERATOR(extensions.<=>) p_vector as distance
                        from two_tower.video_embeddings e
                        where e.model_version = p_version and p_tag_ids is null
                        union all
                        select e.video_id, e.embedding OPERATOR(extensions.<=>) p_vector as distance
                        from (
                            select distinct t.video_id from public.video_tags t where p_tag_ids is not null and t.tag_id = any (p_tag_ids)
                        ) as t
                        join two_tower.video_embeddings e on e.model_version = p_version and e.video_id = t.video_id
                    ) as a
                    -- An expression that no index has; and first of all, so that few rows need the checks below.
                    order by a.distance + 0, a.video_id
                    limit case v_way when 'enough' then c_enough end
                ) as c
                where c.video_id not in (select unnest(p_excluded))
                    and (select true from two_tower.visible_videos v where v.id = c.video_id)
                limit c_wanted
            ) as n;
        else
            perform set_config('hnsw.iterative_scan', v_way, true);
            -- What the index gives is nearly in order. From PostgreSQL 16 on, an aggregate would take its word that it is.
            select array_agg(n.video_id order by n.distance + 0, n.video_id),
                array_agg((1 - n.distance)::real order by n.distance + 0, n.video_id)
            into ids, scores
            from (
                select e.video_id, e.embedding OPERATOR(extensions.<=>) p_vector as distance
                from two_tower.video_embeddings e
                where e.model_version = p_version
                    and e.video_id not in (select unnest(p_excluded))
                    and (select true from two_tower.visible_videos v where v.id = e.video_id)
                    -- For few rows; exists() would be hashed, with all that carry a tag.
                    and (p_tag_ids is null or (
                        select true from public.video_tags t where t.video_id = e.video_id and t.tag_id = any (p_tag_ids) limit 1
                    ))
                order by e.embedding OPERATOR(extensions.<=>) p_vector limit c_wanted
            ) as n;
        end if;
        exit when cardinality(ids) = c_wanted;
    end loop;

    if p_diversity > 0 then
        select array_agg(d.video_id order by d.rank), array_agg(d.score order by d.rank) into ids, scores
        from two_tower.diversify(p_version, ids, scores, p_limit, p_diversity) d;
    end if;
    ids := coalesce(ids, '{}');
    scores := coalesce(scores, '{}');
end
$func$;

comment on function two_tower.nearest_videos(text, extensions.halfvec, int, uuid[], uuid[], real) is
'The visible videos nearest to a vector, less the excluded and those without any of the tags, best first, and their cosines';
