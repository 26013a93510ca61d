-- What is nearest to a video, then what is popular.
create or replace function two_tower.rank_similar(p_video_id uuid, p_limit int)
returns table (video_id uuid, score real, rank int, reason text)
language plpgsql stable parallel unsafe security invoker
set search_path = ''
set "hnsw.iterative_scan" = 'relaxed_order'
set "hnsw.ef_search" = 400
set "hnsw.max_scan_tuples" = 50000
as $func$
declare
    v_version text := two_tower.active_version();
    v_vector extensions.halfvec;
    v_ids uuid[] := '{}';
    v_scores real[] := '{}';
    v_reasons text[] := '{}';
    v_more uuid[];
    v_more_scores real[];
begin
    perform two_tower.require_page(p_limit, 0, 200);
    if not exists (select from public.videos v where v.id = p_video_id and v.published_at <= now()) then
        raise exception 'there is no video %', p_video_id using errcode = 'P0002';
    end if;
    select e.embedding into v_vector from two_tower.video_embeddings e
    where e.model_version = v_version and e.video_id = p_video_id;
    if v_vector is not null then
        select coalesce(array_agg(n.id order by n.distance, n.id), '{}'),
            coalesce(array_agg((1 - n.distance)::real order by n.distance, n.id), '{}')
        into v_ids, v_scores
        from (
            select e.video_id as id, e.embedding OPERATOR(extensions.<=>) v_vector as distance
            from two_tower.video_embeddings e
            where e.model_version = v_version and e.video_id <> p_video_id
                and (select v.published_at <= now() from public.videos v where v.id = e.video_id)
            order by e.embedding OPERATOR(extensions.<=>) v_vector limit p_limit
        ) as n;
        v_reasons := array_fill('similar'::text, array[cardinality(v_ids)]);
    end if;
    if cardinality(v_ids) < p_limit then
        select array_agg(n.id order by n.score desc, n.id), array_agg(n.score::real order by n.score desc, n.id)
        into v_more, v_more_scores
        from (
            select v.id, coalesce(p.score, 0) as score
            from public.videos v left join two_tower.video_popularity p on p.video_id = v.id
            where v.published_at <= now() and v.id <> p_video_id and v.id <> all (v_ids)
            order by coalesce(p.score, 0) desc, v.id limit p_limit - cardinality(v_ids)
        ) as n;
        v_ids := v_ids || v_more;
        v_scores := v_scores || v_more_scores;
        v_reasons := v_reasons || array_fill('popular'::text, array[coalesce(cardinality(v_more), 0)]);
    end if;
    return query
    select r.id, r.score, r.position::int, r.reason
    from unnest(v_ids, v_scores, v_reasons) with ordinality as r (id, score, reason, position);
end
$func$;

comment on function two_tower.rank_similar(uuid, int) is
'Published videos nearest to a video, best first, with the reason of each: similar or popular';
