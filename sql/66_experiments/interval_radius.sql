-- A confidence sequence: it holds at all looks together, so one may look daily and stop when one likes. The mixture sequential probability
-- ratio test (Robbins 1970; Johari, Koomen, Pekelis and Walsh, "Always Valid Inference: Continuous Monitoring of A/B Tests", Operations
-- Research 70, 2022, section 4) of a normal estimate with variance V, and effects mixed over a normal distribution with deviation tau:
-- the likelihood ratio is sqrt(V / (V + tau^2)) * exp(tau^2 * estimate^2 / (2 * V * (V + tau^2))), and exceeds 1 / alpha at any time, where
-- there is no effect, with a probability of at most alpha. The interval has the effects that it does not refute at 0.05.
create or replace function two_tower.interval_radius(p_variance double precision, p_deviation double precision) returns double precision
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select sqrt(
        p_variance * (p_variance + p_deviation ^ 2) / p_deviation ^ 2 * (2 * ln(1 / 0.05) + ln((p_variance + p_deviation ^ 2) / p_variance))
    )
    where p_variance > 0 and p_deviation > 0
$func$;

comment on function two_tower.interval_radius(double precision, double precision) is
'Half the width of a confidence sequence of 95 % for a normal estimate of this variance, tightest for effects of about the deviation';
