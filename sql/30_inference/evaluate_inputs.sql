create or replace function two_tower.evaluate_inputs(p_version text, p_sizes bytea, p_inputs bytea) returns bytea
language plpython3u stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
as $plpython$
-- include plpython/inference.py
-- include plpython/model_files.py
-- include plpython/histories.py
if not p_inputs:
    return None
numpy, onnxruntime = load_libraries(plpy)
sizes = column(numpy, p_sizes, ">i4").astype(numpy.int64)
pieces_of = lambda width: packed_pieces(numpy, width, ROWS_PER_RUN, sizes, p_inputs)
return evaluate(plpy, GD, numpy, onnxruntime, p_version, "user", pieces_of)
$plpython$;

comment on function two_tower.evaluate_inputs(text, bytea, bytea) is
'The bytes of the vectors of stored inputs of users, in their order; p_sizes is array_send() of the lengths of the inputs';
