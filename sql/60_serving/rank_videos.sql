-- The ladder that every list comes down: nearest vectors, then popular videos, then the newest ones. Each rung only fills
-- what the ones above left open, and all of them leave out what the user has decided on and what is not published.
--
-- hnsw.iterative_scan makes the index go on until enough rows pass the filter; relaxed order is sorted again here.
create or replace function two_tower.rank_videos(p_user_id uuid, p_limit int, p_tag_ids uuid[] default null, p_version text default null)
returns table (video_id uuid, score real, rank int, reason text)
language plpgsql stable parallel unsafe security invoker
set search_path = ''
set "hnsw.iterative_scan" = 'relaxed_order'
set "hnsw.ef_search" = 400
set "hnsw.max_scan_tuples" = 50000
as $func$
declare
    -- Below this many candidates, computing every distance is faster than walking the index, and exact.
    c_exact constant int := 20000;
    v_version text := coalesce(p_version, two_tower.active_version());
    v_seen uuid[] := array(select d.video_id from public.user_video_decisions d where d.user_id = p_user_id);
    v_vector extensions.halfvec;
    v_candidates uuid[];
    v_small boolean;
    v_ids uuid[] := '{}';
    v_scores real[] := '{}';
    v_reasons text[] := '{}';
    v_more uuid[];
    v_more_scores real[];
begin
    if v_version is not null then
        select e.embedding into v_vector from two_tower.user_embeddings e where e.model_version = v_version and e.user_id = p_user_id;
        if v_vector is null and v_seen <> '{}' then
            begin
                select e.embedding into v_vector from two_tower.embed_users(array[p_user_id], v_version) e;
            exception
                -- Without its library the engine cannot answer; the list is popular then, and two_tower.status tells.
                when system_error then v_vector := null;
            end;
        end if;
    end if;
    if p_tag_ids is not null then
        v_candidates := array(
            select distinct t.video_id from public.video_tags t where t.tag_id = any (p_tag_ids) limit c_exact + 1
        );
    end if;

    if v_vector is not null then
        if v_candidates is null then
            -- The index build, or the last analyze, counted the partition.
            select c.reltuples <= c_exact into v_small
            from two_tower.model_versions m
            join pg_catalog.pg_class c on c.oid = to_regclass('two_tower.video_embeddings_' || m.number)
            where m.version = v_version;
        end if;
        if not coalesce(v_small, cardinality(v_candidates) <= c_exact) then
            select array_agg(n.video_id order by n.distance, n.video_id), array_agg((1 - n.distance)::real order by n.distance, n.video_id)
            into v_ids, v_scores
            from (
                select e.video_id, e.embedding OPERATOR(extensions.<=>) v_vector as distance
                from two_tower.video_embeddings e
                where e.model_version = v_version
                    and e.video_id <> all (v_seen)
                    and (select v.published_at <= now() from public.videos v where v.id = e.video_id)
                    and (p_tag_ids is null or exists (
                        select from public.video_tags t where t.video_id = e.video_id and t.tag_id = any (p_tag_ids)
                    ))
                order by e.embedding OPERATOR(extensions.<=>) v_vector limit p_limit
            ) as n;
        end if;
        if cardinality(v_ids) < p_limit or v_ids is null then
            -- Exact: there are few candidates, or the index scan ended before enough rows passed. Adding zero keeps the planner
            -- off the index.
            if cardinality(v_candidates) <= c_exact then
                select array_agg(n.video_id order by n.distance, n.video_id), array_agg((1 - n.distance)::real order by n.distance, n.video_id)
                into v_ids, v_scores
                from (
                    select e.video_id, e.embedding OPERATOR(extensions.<=>) v_vector as distance
                    from unnest(v_candidates) as c (id)
                    join two_tower.video_embeddings e on e.model_version = v_version and e.video_id = c.id
                    join public.videos v on v.id = e.video_id and v.published_at <= now()
                    where e.video_id <> all (v_seen)
                    order by (e.embedding OPERATOR(extensions.<=>) v_vector) + 0, e.video_id limit p_limit
                ) as n;
            else
                select array_agg(n.video_id order by n.distance, n.video_id), array_agg((1 - n.distance)::real order by n.distance, n.video_id)
                into v_ids, v_scores
                from (
                    select e.video_id, e.embedding OPERATOR(extensions.<=>) v_vector as distance
                    from two_tower.video_embeddings e
                    join public.videos v on v.id = e.video_id and v.published_at <= now()
                    where e.model_version = v_version
                        and e.video_id <> all (v_seen)
                        and (p_tag_ids is null or exists (
                            select from public.video_tags t where t.video_id = e.video_id and t.tag_id = any (p_tag_ids)
                        ))
                    order by (e.embedding OPERATOR(extensions.<=>) v_vector) + 0, e.video_id limit p_limit
                ) as n;
            end if;
        end if;
        v_ids := coalesce(v_ids, '{}');
        v_scores := coalesce(v_scores, '{}');
        v_reasons := array_fill('taste'::text, array[cardinality(v_ids)]);
    end if;

    if cardinality(v_ids) < p_limit then
        select array_agg(n.video_id order by n.score desc, n.video_id), array_agg(n.score::real order by n.score desc, n.video_id)
        into v_more, v_more_scores
        from (
            select p.video_id, p.score
            from two_tower.video_popularity p
            where p.video_id <> all (v_seen) and p.video_id <> all (v_ids)
                and (select v.published_at <= now() from public.videos v where v.id = p.video_id)
                and (p_tag_ids is null or exists (
                    select from public.video_tags t where t.video_id = p.video_id and t.tag_id = any (p_tag_ids)
                ))
            order by p.score desc, p.video_id limit p_limit - cardinality(v_ids)
        ) as n;
        v_ids := v_ids || v_more;
        v_scores := v_scores || v_more_scores;
        v_reasons := v_reasons || array_fill('popular'::text, array[coalesce(cardinality(v_more), 0)]);
    end if;

    if cardinality(v_ids) < p_limit then
        select array_agg(n.id order by n.published_at desc, n.id), array_agg(0::real)
        into v_more, v_more_scores
        from (
            select v.id, v.published_at
            from public.videos v
            where v.published_at <= now() and v.id <> all (v_seen) and v.id <> all (v_ids)
                and (p_tag_ids is null or exists (
                    select from public.video_tags t where t.video_id = v.id and t.tag_id = any (p_tag_ids)
                ))
            order by v.published_at desc, v.id limit p_limit - cardinality(v_ids)
        ) as n;
        v_ids := v_ids || v_more;
        v_scores := v_scores || v_more_scores;
        v_reasons := v_reasons || array_fill(
            case when v_version is null then 'popular' else 'newest' end, array[coalesce(cardinality(v_more), 0)]
        );
    end if;

    return query
    select r.id, r.score, r.position::int, r.reason
    from unnest(v_ids, v_scores, v_reasons) with ordinality as r (id, score, reason, position);
end
$func$;

comment on function two_tower.rank_videos(uuid, int, uuid[], text) is
'The best published videos for a user that the user has not decided on, best first, with the reason of each: taste, popular or newest';
