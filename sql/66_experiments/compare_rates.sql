-- The test is that of interval_radius(). Before there are fifty users on each side, and ten who liked (or noped) anything, the estimate
-- is not normal enough for any of it.
create or replace function two_tower.compare_rates(
    p_rate_a double precision, p_variance_a double precision, p_users_a bigint, p_hits_a bigint,
    p_rate_b double precision, p_variance_b double precision, p_users_b bigint, p_hits_b bigint,
    out difference double precision, out low double precision, out high double precision, out p_value double precision
)
language plpgsql immutable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    c_least_users constant bigint := 50;
    c_least_hits constant bigint := 10;
    v_variance double precision := p_variance_a + p_variance_b;
    v_deviation double precision := two_tower.expected_effect((p_rate_a + p_rate_b) / 2);
    v_radius double precision;
begin
    difference := p_rate_b - p_rate_a;
    if least(p_users_a, p_users_b) >= c_least_users and least(p_hits_a, p_hits_b) >= c_least_hits then
        v_radius := two_tower.interval_radius(v_variance, v_deviation);
        low := difference - v_radius;
        high := difference + v_radius;
        -- Bounded where exp() has a value.
        p_value := case when v_variance > 0 then exp(least(0, greatest(
            -700,
            ln((v_variance + v_deviation ^ 2) / v_variance) / 2
            - v_deviation ^ 2 * difference ^ 2 / (2 * v_variance * (v_variance + v_deviation ^ 2))
        ))) end;
    end if;
end
$func$;

comment on function two_tower.compare_rates(
    double precision, double precision, bigint, bigint, double precision, double precision, bigint, bigint
) is
'By how much rate b is above rate a, with a confidence sequence of 95 % and a p-value, valid for repeated looks; these are null for '
'fewer than 50 users on either side, or fewer than 10 hits';
