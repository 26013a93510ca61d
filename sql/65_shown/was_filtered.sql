create or replace function two_tower.was_filtered(p_list_id uuid) returns boolean
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select substr(p_list_id::text, 15, 1) = '8'
$func$;

comment on function two_tower.was_filtered(uuid) is
'Whether a list was requested with filters, from its id by two_tower.list_id()';
