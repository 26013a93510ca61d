-- The keys of a value: each element of an array; a text, number or boolean itself. Users write their own profiles, and
-- may write anything, so there are at most a hundred keys, the first by their bytes.
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
'The keys of a value: the elements of an array, or the value itself; none for an object or null';
