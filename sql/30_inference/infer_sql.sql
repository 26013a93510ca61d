-- The towers in SQL, of any raw inputs: what the sums of sum_users() are held to, and how a new video is placed where the server has
-- no onnxruntime. Terms are added in the order of their positions, so that a vector does not depend on what else is computed with it.
create or replace function two_tower.infer_sql(p_version text, p_tower text, p_inputs extensions.sparsevec[]) returns extensions.halfvec[]
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp set extra_float_digits = 1
as $func$
declare
    v_bias extensions.vector := (select r.weight from two_tower.model_rows(p_version, p_tower, 'bias') r);
    v_input extensions.sparsevec;
    v_positions int[];
    v_values real[];
    v_vectors extensions.halfvec[] := '{}';
begin
    if v_bias is null then
        raise exception 'the % tower of model % is not there as rows', p_tower, p_version
            using errcode = '55000', hint = 'Register the model with two-tower, or set inference_engine to onnxruntime before it is registered.';
    end if;
    foreach v_input in array p_inputs loop
        select coalesce(array_agg(split_part(e.entry, ':', 1)::int), '{}'), coalesce(array_agg(split_part(e.entry, ':', 2)::real), '{}')
        into v_positions, v_values
        from unnest(string_to_array(split_part(substr(v_input::text, 2), '}', 1), ',')) as e (entry)
        where e.entry <> '';
        v_vectors := v_vectors || case p_tower
            when 'user' then two_tower.user_vector(two_tower.sum_input(p_version, v_input))
            else two_tower.video_vector(coalesce(
                (
                    select r.weight from unnest(v_positions) as i (position)
                    join two_tower.model_rows(p_version, 'item', 'own') r on r.at = i.position
                    limit 1
                ),
                v_bias OPERATOR(extensions.+) two_tower.place_by_content(p_version, v_positions, v_values),
                v_bias
            ))
        end;
    end loop;
    return v_vectors;
end
$func$;

comment on function two_tower.infer_sql(text, text, extensions.sparsevec[]) is
'The engine sql: vectors for raw inputs of a tower, in their order';
