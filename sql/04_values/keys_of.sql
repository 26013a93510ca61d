-- What a value says as keys: an array each of its elements, a text, number or truth value itself. Whoever writes a profile writes his own, and
-- may write anything: so no more than a hundred, the first by their bytes.
-- A body of text without a set clause, as attributes_of().
create or replace function two_tower.keys_of(p_value jsonb) returns table (key text)
language sql immutable parallel safe security invoker
as $func$
    select k.key
    from (
        select distinct pg_catalog.btrim(e.value) collate "C" as key
        from pg_catalog.jsonb_array_elements_text(
            case pg_catalog.jsonb_typeof(p_value)
                when 'array' then p_value when 'object' then '[]' else pg_catalog.jsonb_build_array(p_value)
            end
        ) as e (value)
    ) as k
    where k.key operator(pg_catalog.<>) ''
    order by k.key limit 100
$func$;

comment on function two_tower.keys_of(jsonb) is
'The keys that a value says: the elements of an array, or the value itself; none for an object or nothing';
