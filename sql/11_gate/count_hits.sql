-- By score and not by id, since any of equal videos counts. Sums in another order may differ by a millionth.
create or replace function two_tower.count_hits(p_exact real[], p_scores real[]) returns bigint
language sql immutable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select least(count(*), cardinality(p_exact))
    from unnest(p_scores) as s (score) where s.score >= p_exact[cardinality(p_exact)] - 1e-6 * greatest(1, abs(p_exact[1]))
$func$;

comment on function two_tower.count_hits(real[], real[]) is 'How many of the exact best scores, best first, a list with these scores holds';
