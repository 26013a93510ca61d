-- Three ways to the same answer: exact among the few videos of selective tags, exact among all of a small catalogue, by the
-- index otherwise. An index scan that ends before enough rows pass the filter is done again exactly.
create or replace function two_tower.nearest_videos(
    p_version text, p_vector extensions.halfvec, p_limit int, p_excluded uuid[], p_tag_ids uuid[] default null
) returns table (video_id uuid, distance double precision)
language plpgsql stable parallel unsafe security invoker
set search_path = ''
-- The scan goes on until enough rows pass the filter. Its order is relaxed, and made strict below.
set "hnsw.iterative_scan" = 'relaxed_order'
set "hnsw.ef_search" = 400
set "hnsw.max_scan_tuples" = 50000
as $func$
#variable_conflict use_column
declare
    -- Up to this many candidates, computing every distance is as fast as an index scan of equal recall.
    c_exact constant int := 20000;
    v_candidates uuid[];
    v_few boolean := false;
    v_ids uuid[];
    v_distances double precision[];
begin
    if p_tag_ids is not null then
        v_candidates := array(select distinct t.video_id from public.video_tags t where t.tag_id = any (p_tag_ids) limit c_exact + 1);
        if cardinality(v_candidates) <= c_exact then
            return query
            select e.video_id, e.embedding OPERATOR(extensions.<=>) p_vector as distance
            from unnest(v_candidates) as c (id)
            join two_tower.video_embeddings e on e.model_version = p_version and e.video_id = c.id
            where e.video_id <> all (p_excluded)
                and (select v.published_at <= now() from public.videos v where v.id = e.video_id)
            order by distance, e.video_id limit p_limit;
            return;
        end if;
    else
        -- As many as there were at the last analyze, or when the index was built.
        select c.reltuples <= c_exact into v_few
        from two_tower.model_versions m
        join pg_catalog.pg_class c on c.oid = to_regclass('two_tower.video_embeddings_' || m.number)
        where m.version = p_version;
    end if;

    if not v_few then
        select array_agg(n.video_id), array_agg(n.distance) into v_ids, v_distances
        from (
            select e.video_id, e.embedding OPERATOR(extensions.<=>) p_vector as distance
            from two_tower.video_embeddings e
            where e.model_version = p_version
                and e.video_id <> all (p_excluded)
                and (select v.published_at <= now() from public.videos v where v.id = e.video_id)
                and (p_tag_ids is null or exists (
                    select from public.video_tags t where t.video_id = e.video_id and t.tag_id = any (p_tag_ids)
                ))
            order by e.embedding OPERATOR(extensions.<=>) p_vector limit p_limit
        ) as n;
        if cardinality(v_ids) = p_limit then
            return query
            select n.id, n.distance from unnest(v_ids, v_distances) as n (id, distance) order by n.distance, n.id;
            return;
        end if;
    end if;

    return query
    select n.video_id, n.distance
    from (
        select e.video_id, e.embedding OPERATOR(extensions.<=>) p_vector as distance
        from two_tower.video_embeddings e
        where e.model_version = p_version
            and e.video_id <> all (p_excluded)
            and (p_tag_ids is null or exists (
                select from public.video_tags t where t.video_id = e.video_id and t.tag_id = any (p_tag_ids)
            ))
        -- Sorted by an expression that no index has.
        order by (e.embedding OPERATOR(extensions.<=>) p_vector) + 0, e.video_id
        offset 0
    ) as n
    where (select v.published_at <= now() from public.videos v where v.id = n.video_id)
    limit p_limit;
end
$func$;

comment on function two_tower.nearest_videos(text, extensions.halfvec, int, uuid[], uuid[]) is
'The published videos nearest to a vector, less the excluded and those without any of the tags, in order of distance and id';
