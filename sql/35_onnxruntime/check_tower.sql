drop function if exists two_tower.check_tower(text, bytea, int);
-- The files are inspected first, so that onnxruntime never opens one that refers to anything outside itself.
create or replace function two_tower.check_tower(
    p_tower text, p_content bytea, p_input_dim int, p_weights bytea, p_sample jsonb, p_max_distance double precision
) returns void
language plpython3u stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
as $plpython$
import json
-- include plpython/inference.py
-- include plpython/model_files.py
check_files(plpy, p_tower, p_content, p_weights)
check_tower(plpy, p_tower, p_content, p_input_dim)
numpy, onnxruntime = load_libraries(plpy)
session = open_session(onnxruntime, p_content)
sample = None if p_sample is None else json.loads(p_sample)
check_sample(plpy, numpy, session, p_tower, p_content, sample, p_max_distance)
$plpython$;

comment on function two_tower.check_tower(text, bytea, int, bytea, jsonb, double precision) is
'Raises 22023 with the reason unless the file is a tower that fulfils the contract and reproduces its parity sample';
