-- The seam between the towers and whatever evaluates them: another engine is another branch here.
create or replace function two_tower.infer(p_version text, p_tower text, p_inputs extensions.sparsevec[]) returns extensions.halfvec[]
language plpgsql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    c_bytes constant int := 2 * 130;
    v_engine text := (select value #>> '{}' from two_tower.settings where name = 'inference_engine');
    v_images bytea;
begin
    if v_engine is distinct from 'onnxruntime' then
        raise exception 'there is no inference engine called %', coalesce(v_engine, 'null')
            using errcode = '22023', hint = 'update two_tower.settings set value = ''"onnxruntime"'' where name = ''inference_engine''';
    end if;
    v_images := two_tower.infer_onnxruntime(p_version, p_tower, (
        select string_agg(extensions.sparsevec_send(i.input), '' order by i.position)
        from unnest(p_inputs) with ordinality as i (input, position)
    ));
    if octet_length(v_images) <> c_bytes * cardinality(p_inputs) then
        raise exception 'the engine gave % bytes for % vectors', octet_length(v_images), cardinality(p_inputs);
    end if;
    return array(
        select two_tower.halfvec_of(substr(v_images, 1 + c_bytes * (n - 1), c_bytes), 128, true)
        from generate_series(1, cardinality(p_inputs)) as n order by n
    );
end
$func$;

comment on function two_tower.infer(text, text, extensions.sparsevec[]) is 'Vectors for raw inputs of a tower, in their order';
