-- Maximal marginal relevance (Carbonell and Goldstein 1998): again and again the candidate with the largest
-- (1 - diversity) * score - diversity * (largest cosine to what is chosen already).
create or replace function two_tower.diversify(p_version text, p_ids uuid[], p_scores real[], p_limit int, p_diversity real)
returns table (video_id uuid, score real, rank int)
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_vectors extensions.halfvec[] := array(
        select e.embedding
        from unnest(p_ids) with ordinality as i (id, position)
        join two_tower.video_embeddings e on e.model_version = p_version and e.video_id = i.id
        order by i.position
    );
    v_nearest real[] := array_fill(0::real, array[cardinality(p_ids)]);
    v_left boolean[] := array_fill(true, array[cardinality(p_ids)]);
    v_best int;
begin
    for v_rank in 1 .. least(p_limit, cardinality(p_ids)) loop
        select c.position into v_best
        from unnest(p_scores, v_nearest, v_left) with ordinality as c (score, nearest, left_over, position)
        where c.left_over
        order by (1 - p_diversity) * c.score - p_diversity * c.nearest desc, c.position limit 1;
        v_left[v_best] := false;
        v_nearest := array(
            select greatest(c.nearest, (1 - (c.embedding OPERATOR(extensions.<=>) v_vectors[v_best]))::real)
            from unnest(v_vectors, v_nearest) with ordinality as c (embedding, nearest, position)
            order by c.position
        );
        video_id := p_ids[v_best];
        score := p_scores[v_best];
        rank := v_rank;
        return next;
    end loop;
end
$func$;

comment on function two_tower.diversify(text, uuid[], real[], int, real) is
'Selects p_limit of scored videos, trading score for difference from those selected before; diversity 0 keeps the order';
