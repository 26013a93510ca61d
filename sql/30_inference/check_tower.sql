create or replace function two_tower.check_tower(p_tower text, p_content bytea, p_input_dim int) returns void
language plpython3u stable parallel unsafe security invoker set search_path = ''
as $plpython$
-- include plpython/inference.py
check_tower(plpy, p_tower, p_content, p_input_dim)
$plpython$;

comment on function two_tower.check_tower(text, bytea, int) is
'Raises 22023 with the reason unless the file is a tower as the contract has it';
