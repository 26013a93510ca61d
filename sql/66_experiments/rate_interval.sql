-- Null where the variance is not known: greatest() and least() would pass over it.
create or replace function two_tower.rate_interval(
    p_rate double precision, p_variance double precision, out low double precision, out high double precision
)
language plpgsql immutable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    c_radius constant double precision := two_tower.interval_radius(p_variance, two_tower.expected_effect(p_rate));
begin
    if c_radius is not null then
        low := greatest(p_rate - c_radius, 0);
        high := least(p_rate + c_radius, 1);
    end if;
end
$func$;

comment on function two_tower.rate_interval(double precision, double precision) is
'The bounds of a rate by the variance of its estimate, which hold at all looks together; null where the variance is not known';
