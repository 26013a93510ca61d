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
    out ids uuid[], out scores real[]
)
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
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
    v_least_part real;
begin
    select coalesce(p_margin, m.search_margin), coalesce(m.with_neighbours > 0 and p_liked <> '{}' and p_length > 1e-12, false)
    into v_margin, v_whole
    from two_tower.model_versions m where m.version = p_version;
    -- The further one looks, the fewer neighbours come up to what is found.
    v_asked := case when v_whole then 2 * c_wanted else c_wanted end;
    loop
        select f.ids, f.cosines into v_near, v_cosines
        from two_tower.search_videos(p_version, p_vector, v_asked, p_excluded, p_filter, v_margin) f;
        ids := v_near;
        scores := v_cosines;
        exit when v_whole is not true;
        v_last := case when cardinality(v_near) = v_asked then v_cosines[v_asked] else 1 end;
        with terms as (
            select unnest(t.neighbour_ids) as id, unnest(t.weights)::double precision * coalesce(l.weight, 1) as value
            from unnest(p_liked, p_weights) as l (id, weight)
            join two_tower.neighbour_lists t on t.model_version = p_version and t.video_id = l.id
        ),
        sums as materialized (
            select t.id, sum(t.value) / p_length as part from terms t group by t.id
        ),
        near as materialized (
            select n.id, n.cosine + coalesce(s.part, 0) as score
            from unnest(v_near, v_cosines) as n (id, cosine) left join sums s on s.id = n.id
        ),
        others as materialized (
            select s.id, s.part
            from sums s where s.id not in (select unnest(p_excluded || v_near))
            order by s.part desc limit 16 * v_asked
        ),
        -- Those to which the likes add most, looked up first: beside them, few of the rest come up to the list.
        strongest as materialized (
            select o.id, 1 - (e.embedding OPERATOR(extensions.<=>) p_vector) + o.part as score
            from (select o.id, o.part from others o order by o.part desc limit v_asked) as o
            join two_tower.video_embeddings e on e.model_version = p_version and e.video_id = o.id
            where (select true from two_tower.visible_videos v where v.id = o.id)
                and (p_filter is null or (select p.passes from two_tower.passing(p_filter, o.id) as p (passes)))
        ),
        least_score as materialized (
            select coalesce((
                select b.score from (select n.score from near n union all select s.score from strongest s) as b
                order by b.score desc offset c_wanted - 1 limit 1
            ), '-infinity') as score
        ),
        rest as (
            select r.id, r.score
            from (
                select o.id, 1 - (e.embedding OPERATOR(extensions.<=>) p_vector) + o.part as score
                from (select o.id, o.part from others o order by o.part desc offset v_asked) as o
                join two_tower.video_embeddings e on e.model_version = p_version and e.video_id = o.id
                where o.part + v_last >= (select l.score from least_score l)
                offset 0
            ) as r
            where r.score >= (select l.score from least_score l)
                and (select true from two_tower.visible_videos v where v.id = r.id)
                and (p_filter is null or (select p.passes from two_tower.passing(p_filter, r.id) as p (passes)))
        )
        select array_agg(b.id order by b.score desc, b.id), array_agg(b.score::real order by b.score desc, b.id),
            (select min(o.part) from others o having count(*) = 16 * v_asked)
        into ids, scores, v_least_part
        from (
            select a.id, a.score
            from (
                select n.id, n.score from near n union all select s.id, s.score from strongest s union all select r.id, r.score from rest r
            ) as a
            order by a.score desc, a.id limit c_wanted
        ) as b;
        -- Weights below zero may have taken some of the nearest away, or so many neighbours come up to the list that not all were looked at.
        exit when not coalesce(
            cardinality(v_near) = v_asked and scores[c_wanted] < v_last
            or v_least_part is not null and coalesce(v_least_part + v_last >= scores[c_wanted], true), false
        );
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

comment on function two_tower.nearest_videos(
    text, extensions.halfvec, int, uuid[], two_tower.video_filter, real, uuid[], real[], real, int
) is
'The visible videos that score best for a vector, less the excluded and those that the filter leaves out, best first. A score is the '
'cosine and, with p_length, the length of the sum that the vector was before it was scaled to 1, what neighbours of p_liked add; '
'p_weights: what each like counts, 1 where null. p_margin: another width of the search than that of the version';
