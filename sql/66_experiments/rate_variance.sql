-- Users are drawn, not videos, and what one user is shown hangs together; so the rate is a ratio of two means over users, and its variance
-- that of the delta method: Deng, Knoblich and Lu, "Applying the Delta Method in Metric Analytics", KDD 2018, equation (3). With R the rate,
-- it is the mean square of hits - R * shown over users, divided by the number of users and the square of the mean of shown.
create or replace function two_tower.rate_variance(
    p_users bigint, p_shown double precision, p_hits double precision, p_shown_squared double precision, p_hits_squared double precision,
    p_product double precision
) returns double precision
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select greatest(
        p_users::double precision / (p_users - 1)
        * (p_hits_squared - 2 * p_hits / p_shown * p_product + (p_hits / p_shown) ^ 2 * p_shown_squared) / p_shown ^ 2, 0
    )
    where p_users > 1 and p_shown > 0
$func$;

comment on function two_tower.rate_variance(
    bigint, double precision, double precision, double precision, double precision, double precision
) is
'Variance of the rate hits / shown of so many users, from sums over them: of shown, of hits, of the squares of both, and of their '
'products; null for fewer than two';
