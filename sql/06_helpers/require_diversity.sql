create or replace function two_tower.require_diversity(p_diversity real) returns void
language plpgsql immutable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    if p_diversity is null or p_diversity not between 0 and 1 then
        raise exception 'diversity must be between 0 and 1, not %', coalesce(p_diversity::text, 'null') using errcode = '22023';
    end if;
end
$func$;

comment on function two_tower.require_diversity(real) is 'Raises 22023 for a diversity out of bounds';
