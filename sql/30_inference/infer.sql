-- The seam between the towers and whatever evaluates them: another engine is another branch here.
create or replace function two_tower.infer(p_version text, p_tower text, p_inputs extensions.sparsevec[]) returns extensions.halfvec[]
language plpgsql stable parallel unsafe security invoker set search_path = ''
as $func$
declare
    v_engine text := (select value #>> '{}' from two_tower.settings where name = 'inference_engine');
begin
    if v_engine = 'onnxruntime' then
        return two_tower.infer_onnxruntime(p_version, p_tower, (
            select string_agg(extensions.sparsevec_send(i.input), '' order by i.position)
            from unnest(p_inputs) with ordinality as i (input, position)
        ))::extensions.halfvec[];
    end if;
    raise exception 'there is no inference engine called %', coalesce(v_engine, 'null')
        using errcode = '22023', hint = 'update two_tower.settings set value = ''"onnxruntime"'' where name = ''inference_engine''';
end
$func$;

comment on function two_tower.infer(text, text, extensions.sparsevec[]) is 'Vectors for raw inputs of a tower, in their order';
