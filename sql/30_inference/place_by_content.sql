-- One hidden layer of Gaussian units. A squared distance is the square of the content, less twice the product with a centre, plus the
-- square of the centre; the second is a sum of rows, one for each input that is not zero, as in the user tower.
--
-- exp() raises where its result is too small for a number, hence the least exponent.
create or replace function two_tower.place_by_content(p_version text, p_positions int[], p_values real[]) returns extensions.vector
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    c_numbers constant int := 3;
    v_mean real[] := (select r.weight from two_tower.model_rows(p_version, 'item', 'mean') r)::real[];
    v_divisor real[] := (select r.weight from two_tower.model_rows(p_version, 'item', 'divisor') r)::real[];
    v_used real[] := (select r.weight from two_tower.model_rows(p_version, 'item', 'used') r)::real[];
    v_decay real := (select r.weight::real[] from two_tower.model_rows(p_version, 'item', 'decay') r)[1];
    v_length double precision;
    v_products extensions.vector;
    v_near extensions.vector;
begin
    with inputs as (
        select i.position, i.value * coalesce(
            (
                select (w.weight::real[])[1] from two_tower.model_weights w
                where w.model_version = p_version and w.tower = 'item' and w.part = 'scale' and w.position = i.position
            ), 1
        ) as value
        from unnest(p_positions, p_values) as i (position, value)
    ),
    terms as (
        select 'centre' as part, i.position, case
            when i.position > c_numbers then i.value
            else greatest(-5, least(5, (ln(1 + i.value::double precision) - v_mean[i.position]) / v_divisor[i.position]))::real
        end as value
        from inputs i
        where i.position > c_numbers or (i.value > 0 and v_used[i.position] = 1)
        union all
        select 'known', i.position, 1 from inputs i where i.position <= c_numbers and i.value > 0 and v_used[i.position] = 1
    )
    select sum(t.value::double precision * t.value),
        extensions.sum(two_tower.times(w.weight, t.value) order by t.part, t.position)
    into v_length, v_products
    from terms t
    left join two_tower.model_weights w
        on w.model_version = p_version and w.tower = 'item' and w.part = t.part and w.position = t.position;
    select array_agg(exp(greatest(v_decay * greatest(coalesce(v_length, 0) + e.value, 0), -80)) order by e.n)::extensions.vector into v_near
    from two_tower.model_rows(p_version, 'item', 'square') s
    cross join lateral unnest((case when v_products is null then s.weight else s.weight OPERATOR(extensions.+) v_products end)::real[])
        with ordinality as e (value, n);
    return (
        select array_agg(-(r.weight OPERATOR(extensions.<#>) v_near) order by r.at)::extensions.vector
        from two_tower.model_rows(p_version, 'item', 'outward') r
    );
end
$func$;

comment on function two_tower.place_by_content(text, int[], real[]) is
'The place of a video by its content, without the bias, from the positions and values of its raw input; null if the tower has no layer';
