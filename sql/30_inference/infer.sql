drop function if exists two_tower.infer(text, text, extensions.sparsevec[]);
-- The seam between the towers and whatever evaluates them: another engine is another branch here.
create or replace function two_tower.infer(p_version text, p_tower text, p_inputs extensions.sparsevec[], p_engine text default null)
returns extensions.halfvec[]
language plpgsql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_engine text := coalesce(p_engine, (
        select case p_tower when 'user' then m.user_engine else m.item_engine end from two_tower.model_versions m where m.version = p_version
    ));
    v_vectors extensions.halfvec[];
begin
    if v_engine = 'given' then
        raise exception 'the vectors of model % were given, and it computes none', p_version
            using errcode = '55000', hint = 'Ask for a version with towers: two-tower model list.';
    elsif v_engine = 'sql' then
        return two_tower.infer_sql(p_version, p_tower, p_inputs);
    end if;
    v_vectors := two_tower.infer_onnxruntime(p_version, p_tower, (
        select string_agg(extensions.sparsevec_send(i.input), '' order by i.position)
        from unnest(p_inputs) with ordinality as i (input, position)
    ))::extensions.halfvec[];
    if cardinality(v_vectors) <> cardinality(p_inputs) then
        raise exception 'the engine gave % vectors for % inputs', cardinality(v_vectors), cardinality(p_inputs);
    end if;
    return v_vectors;
end
$func$;

comment on function two_tower.infer(text, text, extensions.sparsevec[], text) is
'Vectors for raw inputs of a tower, in their order, by the engine of the version or the one named';
