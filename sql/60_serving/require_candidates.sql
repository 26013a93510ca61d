create or replace function two_tower.require_candidates(p_limit int, p_diversity real) returns void
language plpgsql immutable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    perform two_tower.require_diversity(p_diversity);
    -- Diversity compares all candidates with each other.
    perform two_tower.require_page(p_limit, 0, case when p_diversity > 0 then 2000 else 20000 end);
end
$func$;

comment on function two_tower.require_candidates(int, real) is
'Raises 22023 for a diversity out of bounds, or for more candidates than list_for_caller() requests';
