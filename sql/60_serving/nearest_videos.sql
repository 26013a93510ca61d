drop function if exists two_tower.nearest_list(text, extensions.halfvec, int, uuid[], uuid[], real);
drop function if exists two_tower.nearest_videos(text, extensions.halfvec, int, uuid[], uuid[]);
drop function if exists two_tower.nearest_videos(text, extensions.halfvec, int, uuid[], uuid[], real);
drop function if exists two_tower.nearest_videos(text, extensions.halfvec, int, uuid[], uuid[], real, uuid[], real[], real, int);

-- The score of a video is its cosine and, of a version with neighbours, what the likes add: the sum of their weights for it, divided as the
-- user's vector is. First the nearest are found; then the neighbours of the likes are scored whole beside them. A neighbour that is not
-- among the nearest has a cosine of at most theirs: where that, and what the likes add, do not reach the list, its vector is not read.
create or replace function two_tower.nearest_videos(
    p_version text, p_vector extensions.halfvec, p_limit int, p_excluded uuid[], p_filter two_tower.video_filter, p_diversity real,
    p_liked uuid[] default '{}', p_weights real[] default null, p_length real default null, p_margin int default null,
    out ids uuid[], out scores real[], out among uuid[]
)
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
declare
    -- Diversity chooses among a few times as many as are asked for.
    c_wanted constant int := case when p_diversity > 0 then 5 * p_limit else p_limit end;
    -- What a user liked is near; of what else is left out, some is.
    c_near constant int := least(cardinality(p_excluded), cardinality(p_liked) + 100);
    -- So many neighbours are looked up at a time. Of those that a filter is asked of, few remain.
    c_step constant int := case when p_filter is null then c_wanted else 5 * c_wanted end;
    v_margin int;
    v_whole boolean;
    v_asked int;
    v_near uuid[];
    v_cosines real[];
    v_last real;
    v_scores double precision[];
    v_least double precision;
    -- The other neighbours, those first to which the likes add most.
    v_others uuid[];
    v_parts double precision[];
begin
    select coalesce(p_margin, m.search_margin), coalesce(m.with_neighbours > 0 and p_liked <> '{}' and p_length > 1e-12, false)
    into v_margin, v_whole
    from two_tower.model_versions m where m.version = p_version;
    -- The further one looks, the fewer neighbours come up to what is found.
    v_asked := case when v_whole then 2 * c_wanted else c_wanted end;
    loop
        select f.ids, f.cosines, f.among into v_near, v_cosines, among
        from two_tower.search_videos(p_version, p_vector, v_asked, p_excluded, p_filter, v_margin, c_near) f;
        -- They are looked for once.
        p_filter.among := among;
        ids := v_near;
        scores := v_cosines;
        exit when v_whole is not true;
        -- Fewer than were asked for are all there are: null, and no neighbour is looked at.
        v_last := case when cardinality(v_near) = v_asked then v_cosines[v_asked] end;
        with sums as materialized (
            select t.id, sum(t.value) / p_length as part
            from (
                select unnest(n.neighbour_ids) as id, unnest(n.weights) * l.weight as value
                from (
                    -- Read once for each like, and not for each of its neighbours.
                    select u.id, coalesce(u.weight, 1)::double precision as weight from unnest(p_liked, p_weights) as u (id, weight) offset 0
                ) as l
                join two_tower.neighbour_lists n on n.model_version = p_version and n.video_id = l.id
            ) as t
            group by t.id
        ),
        best as materialized (
            select n.id, n.cosine + coalesce(s.part, 0) as score
            from unnest(v_near, v_cosines) as n (id, cosine) left join sums s on s.id = n.id
            order by score desc, n.id limit c_wanted
        ),
        least as materialized (
            select coalesce((select min(b.score) from best b having count(*) = c_wanted), '-infinity') as score
        ),
        others as (
            select c.id, c.part
            from (
                -- First of all, and of numbers, since that leaves few to be looked for among the excluded.
                select s.id, s.part from sums s where s.part + v_last >= (select l.score from least l) offset 0
            ) as c
            where c.id not in (select unnest(p_excluded || v_near))
                -- Where those that pass are known, no other is looked up.
                and (among is null or c.id in (select unnest(among)))
            order by c.part desc
        )
        select f.ids, f.scores, l.score, o.ids, o.parts into ids, v_scores, v_least, v_others, v_parts
        from (select array_agg(b.id) as ids, array_agg(b.score) as scores from best b) as f
        cross join least l
        cross join (select array_agg(o.id) as ids, array_agg(o.part) as parts from others o) as o;
        -- Beside those looked up first, few of the rest come up to the list.
        while v_others <> '{}' and v_parts[1] + v_last >= v_least loop
            if p_filter is null then
                select array_agg(b.id), array_agg(b.score) into ids, v_scores
                from (
                    select a.id, a.score
                    from (
                        select f.id, f.score from unnest(ids, v_scores) as f (id, score)
                        union all
                        select n.id, n.score
                        from (
                            select o.id, 1 - (e.embedding OPERATOR(extensions.<=>) p_vector) + o.part as score
                            from unnest(v_others[: c_step], v_parts[: c_step]) as o (id, part)
                            join two_tower.video_embeddings e on e.model_version = p_version and e.video_id = o.id
                            where o.part + v_last >= v_least
                            offset 0
                        ) as n
                        where n.score >= v_least and (select true from two_tower.visible_videos v where v.id = n.id)
                    ) as a
                    order by a.score desc, a.id limit c_wanted
                ) as b;
            else
                -- As above, for those that pass. To begin a statement with all that a filter may ask for takes as long as some of the rest.
                select array_agg(b.id), array_agg(b.score) into ids, v_scores
                from (
                    select a.id, a.score
                    from (
                        select f.id, f.score from unnest(ids, v_scores) as f (id, score)
                        union all
                        select n.id, n.score
                        from (
                            select c.id, 1 - (e.embedding OPERATOR(extensions.<=>) p_vector) + c.part as score
                            from (
                                select o.id, o.part
                                from unnest(v_others[: c_step], v_parts[: c_step]) as o (id, part)
                                cross join lateral two_tower.passing(p_filter, o.id) as p (passes)
                                where o.part + v_last >= v_least
                                offset 0
                            ) as c
                            join two_tower.video_embeddings e on e.model_version = p_version and e.video_id = c.id
                            offset 0
                        ) as n
                        where n.score >= v_least and (select true from two_tower.visible_videos v where v.id = n.id)
                    ) as a
                    order by a.score desc, a.id limit c_wanted
                ) as b;
            end if;
            v_least := coalesce(v_scores[c_wanted], '-infinity');
            v_others := v_others[c_step + 1 :];
            v_parts := v_parts[c_step + 1 :];
        end loop;
        scores := v_scores::real[];
        -- Weights below zero may have taken some of the nearest away: then what the index holds beyond them may come up to the list.
        exit when not coalesce(cardinality(v_near) = v_asked and v_scores[c_wanted] < v_last, false);
        v_asked := 4 * v_asked;
    end loop;

    ids := coalesce(ids, '{}');
    scores := coalesce(scores, '{}');
    if p_diversity > 0 and ids <> '{}' then
        select array_agg(d.video_id order by d.rank), array_agg(d.score order by d.rank) into ids, scores
        from two_tower.diversify(p_version, ids, scores, p_limit, p_diversity) d;
    end if;
end
$func$;

comment on function two_tower.nearest_videos(
    text, extensions.halfvec, int, uuid[], two_tower.video_filter, real, uuid[], real[], real, int
) is
'The visible videos that score best for a vector, without the excluded and those that do not pass the filter, best first. A score is the '
'cosine and, with p_length, the length of the sum that the vector was before it was scaled to 1, what neighbours of p_liked add; '
'p_weights: the weight of each like, 1 if null. p_margin: another width of the search than that of the '
'version. among: as search_videos()';
