create or replace function two_tower.require_session(p_liked uuid[], p_noped uuid[]) returns void
language plpgsql immutable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    c_most constant int := 500;
    c_given constant int := coalesce(cardinality(p_liked), 0) + coalesce(cardinality(p_noped), 0);
begin
    if c_given > c_most then
        raise exception 'liked and noped may have % videos together, not %', c_most, c_given using errcode = '22023';
    end if;
end
$func$;

comment on function two_tower.require_session(uuid[], uuid[]) is 'Raises 22023 for more likes and nopes than a session may have';
