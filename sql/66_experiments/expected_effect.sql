-- Where effects are much smaller, or much larger, a test takes longer than it need; it errs as rarely.
create or replace function two_tower.expected_effect(p_rate double precision) returns double precision
language sql immutable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select 0.2 * p_rate
$func$;

comment on function two_tower.expected_effect(double precision) is
'By about how much a rate may be expected to change: what confidence sequences of rates are tightest for';
