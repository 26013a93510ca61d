-- What a value says as keys: an array each of its elements, a text, number or truth value itself. Whoever writes a profile writes his own, and
-- may write anything: so no more than a hundred, the first by their bytes.
create or replace function two_tower.keys_of(p_value jsonb) returns setof text
language sql immutable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select k.key
    from (
        select distinct btrim(e.value) collate "C" as key
        from jsonb_array_elements_text(case jsonb_typeof(p_value) when 'array' then p_value when 'object' then '[]' else jsonb_build_array(p_value) end) as e (value)
    ) as k
    where k.key <> ''
    order by k.key limit 100
$func$;

comment on function two_tower.keys_of(jsonb) is 'The keys that a value says: the elements of an array, or the value itself; none for an object or nothing';
