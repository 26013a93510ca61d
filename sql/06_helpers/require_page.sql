create or replace function two_tower.require_page(p_limit int, p_offset int default 0, p_most int default 10000) returns void
language plpgsql immutable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    if p_limit is null or p_limit not between 1 and p_most then
        raise exception 'limit must be between 1 and %, not %', p_most, coalesce(p_limit::text, 'null') using errcode = '22023';
    end if;
    if p_offset is null or p_offset < 0 then
        raise exception 'offset must be 0 or more, not %', coalesce(p_offset::text, 'null') using errcode = '22023';
    end if;
end
$func$;

comment on function two_tower.require_page(int, int, int) is 'Raises 22023 for a limit or an offset out of bounds';
