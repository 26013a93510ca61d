drop function if exists two_tower.nearest_list(text, extensions.halfvec, int, uuid[], uuid[], real);
drop function if exists two_tower.nearest_videos(text, extensions.halfvec, int, uuid[], uuid[]);
drop function if exists two_tower.nearest_videos(text, extensions.halfvec, int, uuid[], uuid[], real);

-- The score of a video is its cosine and, of a version with neighbours, what the likes add: the sum of their weights for it, divided as the
-- user's vector is. First the nearest are found; then the neighbours of the likes are scored whole beside them. A neighbour that is not
-- among the nearest has a cosine of at most theirs: where that, and what the likes add, do not reach the list, its vector is not read.
create or replace function two_tower.nearest_videos(
    p_version text, p_vector extensions.halfvec, p_limit int, p_excluded uuid[], p_tag_ids uuid[], p_diversity real,
    p_liked uuid[] default '{}', p_weights real[] default null, p_length real default null, p_margin int default null,
    out ids uuid[], out scores real[]
)
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, pg_temp
as $func$
declare
    -- Diversity chooses among a few times as many as are asked for.
    c_wanted constant int := case when p_diversity > 0 then 5 * p_limit else p_limit end;
    v_margin int;
    v_whole boolean;
    v_asked int;
    v_near uuid[];
    v_cosines real[];
    v_last real;
begin
    select coalesce(p_margin, m.search_margin), coalesce(m.with_neighbours > 0 and p_liked <> '{}' and p_length > 1e-12, false)
    into v_margin, v_whole
    from two_tower.model_versions m where m.version = p_version;
    -- The further one looks, the fewer neighbours come up to what is found.
    v_asked := case when v_whole then 2 * c_wanted else c_wanted end;
    loop
        select f.ids, f.cosines into v_near, v_cosines
        from two_tower.search_videos(p_version, p_vector, v_asked, p_excluded, p_tag_ids, v_margin) f;
        ids := v_near;
        scores := v_cosines;
        exit when v_whole is not true;
        v_last := case when cardinality(v_near) = v_asked then v_cosines[v_asked] else 1 end;
        with sums as materialized (
            select n.id, sum(n.weight::double precision * coalesce(l.weight, 1)) / p_length as part
            from unnest(p_liked, p_weights) as l (id, weight)
            join two_tower.neighbour_lists t on t.model_version = p_version and t.video_id = l.id
            cross join lateral unnest(t.neighbour_ids, t.weights) as n (id, weight)
            group by n.id
        ),
        near as materialized (
            select n.id, n.cosine + coalesce(s.part, 0) as score
            from unnest(v_near, v_cosines) as n (id, cosine) left join sums s on s.id = n.id
        ),
        last_place as materialized (
            select coalesce((select n.score from near n order by n.score desc offset c_wanted - 1 limit 1), '-infinity') as score
        ),
        others as (
            select s.id, 1 - (e.embedding OPERATOR(extensions.<=>) p_vector) + s.part as score
            from sums s
            join two_tower.video_embeddings e on e.model_version = p_version and e.video_id = s.id
            where s.part + v_last >= (select l.score from last_place l)
                and s.id not in (select unnest(p_excluded)) and s.id not in (select unnest(v_near))
                and (select true from two_tower.visible_videos v where v.id = s.id)
                and (p_tag_ids is null or (
                    select true from public.video_tags t where t.video_id = s.id and t.tag_id = any (p_tag_ids) limit 1
                ))
        )
        select array_agg(b.id order by b.score desc, b.id), array_agg(b.score::real order by b.score desc, b.id)
        into ids, scores
        from (
            select a.id, a.score from (select n.id, n.score from near n union all select o.id, o.score from others o) as a
            order by a.score desc, a.id limit c_wanted
        ) as b;
        -- Weights below zero may have taken some of the nearest away: what comes after them has not been looked at.
        exit when not coalesce(cardinality(v_near) = v_asked and scores[c_wanted] < v_last, false);
        v_asked := 4 * v_asked;
    end loop;

    if p_diversity > 0 then
        select array_agg(d.video_id order by d.rank), array_agg(d.score order by d.rank) into ids, scores
        from two_tower.diversify(p_version, ids, scores, p_limit, p_diversity) d;
    end if;
    ids := coalesce(ids, '{}');
    scores := coalesce(scores, '{}');
end
$func$;

comment on function two_tower.nearest_videos(text, extensions.halfvec, int, uuid[], uuid[], real, uuid[], real[], real, int) is
'The visible videos that score best for a vector, less the excluded and those without any of the tags, best first. A score is the cosine '
'and, with p_length, the length of the sum that the vector was before it was scaled to 1, what neighbours of p_liked add; p_weights: what '
'each like counts, 1 where null. p_margin: another width of the search than that of the version';
