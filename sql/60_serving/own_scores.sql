-- SECURITY DEFINER: it reads vectors and popularity, which clients may not; of the caller's own taste alone.
create or replace function two_tower.own_scores(p_video_ids uuid[]) returns table (video_id uuid, score real, place int)
language plpgsql stable parallel unsafe security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
declare
    c_most constant int := 2000;
    v_version text := two_tower.served_version(auth.uid());
    v_history record;
    v_vector extensions.halfvec;
    v_length real;
    v_filter two_tower.video_filter := two_tower.compile_filter(null, auth.uid());
begin
    if auth.uid() is null then
        raise exception 'not signed in' using errcode = '28000';
    end if;
    if cardinality(p_video_ids) > c_most then
        raise exception 'at most % videos can be ranked at once, not %', c_most, cardinality(p_video_ids) using errcode = '22023';
    end if;
    if two_tower.personalised(array[auth.uid()]) <> '{}' then
        v_history := two_tower.history_of(auth.uid(), v_version);
        select u.embedding, u.length into v_vector, v_length from two_tower.vector_of(auth.uid(), v_version) u;
    else
        select '{}'::uuid[] as liked, null::real[] as weights into v_history;
    end if;
    return query
    with given as materialized (
        select g.id, min(g.n) as n from unnest(p_video_ids) with ordinality as g (id, n)
        where (select true from two_tower.visible_videos v where v.id = g.id)
            and (v_filter is null or (select p.passes from two_tower.passing(v_filter, g.id) as p (passes)))
        group by g.id
    ),
    sums as materialized (
        select n.id, sum(n.weight::double precision * coalesce(l.weight, 1)) / v_length as part
        from unnest(v_history.liked, v_history.weights) as l (id, weight)
        join two_tower.neighbour_lists t on t.model_version = v_version and t.video_id = l.id
        cross join lateral unnest(t.neighbour_ids, t.weights) as n (id, weight)
        where v_length > 1e-12 and n.id in (select g.id from given g)
        group by n.id
    ),
    scored as (
        select g.id, g.n, (1 - (e.embedding OPERATOR(extensions.<=>) v_vector) + coalesce(s.part, 0))::real as score
        from given g
        left join two_tower.video_embeddings e on e.model_version = v_version and e.video_id = g.id and e.placed
        left join sums s on s.id = g.id
    )
    select s.id, s.score, (row_number() over (order by s.score desc nulls last, p.score desc nulls last, s.n))::int
    from scored s
    left join two_tower.video_popularity p on p.video_id = s.id and s.score is null;
end
$func$;

comment on function two_tower.own_scores(uuid[]) is
'Scores of these videos for the caller, as in recommend_videos(), and their order; null if nothing is known. '
'28000 if nobody is signed in, 22023 for too many';
