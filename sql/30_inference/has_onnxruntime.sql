-- Asked by what may do without. Its routines are only made where the server has PL/Python.
create or replace function two_tower.has_onnxruntime() returns boolean
language plpgsql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    perform two_tower.infer_onnxruntime(null, 'user', null);
    return true;
exception
    when undefined_function or system_error then return false;
end
$func$;

comment on function two_tower.has_onnxruntime() is 'Whether the engine onnxruntime can be used in this server';
