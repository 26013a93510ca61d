drop function if exists two_tower.infer_onnxruntime(text, text, bytea);
create or replace function two_tower.infer_onnxruntime(p_version text, p_tower text, p_packed bytea) returns text[]
language plpython3u stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
as $plpython$
-- include plpython/inference.py
-- include plpython/model_files.py
return infer(plpy, SD, p_version, p_tower, p_packed)
$plpython$;

comment on function two_tower.infer_onnxruntime(text, text, bytea) is
'The engine onnxruntime: vectors, as text, for concatenated sparsevec_send inputs, in their order';
