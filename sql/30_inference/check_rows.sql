-- That rows are the tower they come with is checked by the sample that the trainer recorded with it.
create or replace function two_tower.check_rows(
    p_version text, p_tower text, p_input_dim int, p_sample jsonb, p_max_distance double precision
) returns void
language plpgsql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_inputs extensions.sparsevec[];
    v_outputs extensions.halfvec[];
    v_distance double precision;
    v_lacking text;
begin
    if p_sample is null then
        raise exception 'model % comes with weights as rows, and without a sample of what its % tower answers (metrics.parity)', p_version, p_tower
            using errcode = '22023', hint = 'Register it with two-tower, which records one.';
    end if;
    select string_agg(format('%s %s', n.number, n.part), ', ') into v_lacking
    from (
        select p.part, p.number
        from (values ('user', 'bias', 1), ('item', 'bias', 1), ('item', 'mean', 1), ('item', 'divisor', 1), ('item', 'used', 1),
                ('item', 'decay', 1), ('item', 'square', 1), ('item', 'outward', 127), ('item', 'known', 3)) as p (tower, part, number)
        where p.tower = p_tower
            -- Without a content layer, a tower has no part of one.
            and (p.part not in ('decay', 'square', 'outward', 'known') or exists (
                select from two_tower.model_weights w
                where w.model_version = p_version and w.tower = 'item' and w.part in ('centre', 'known', 'decay', 'square', 'outward')
            ))
            and (select count(*) from two_tower.model_rows(p_version, p_tower, p.part)) <> p.number
    ) as n;
    if v_lacking is not null then
        raise exception 'the rows of the % tower of model % are not complete: there must be %', p_tower, p_version, v_lacking
            using errcode = '22023';
    end if;
    if exists (
        select from two_tower.model_weights w where w.model_version = p_version and w.tower = p_tower
            and not extensions.vector_norm(w.weight) < 'infinity'
    ) then
        raise exception 'a weight of the % tower of model % is not finite', p_tower, p_version using errcode = '22023';
    end if;
    select array_agg(('{' || coalesce((
            select string_agg((e.value ->> 0)::int + 1 || ':' || (e.value ->> 1), ',') from jsonb_array_elements(i.value) as e (value)
        ), '') || '}/' || p_input_dim)::extensions.sparsevec order by i.n)
    into v_inputs
    from jsonb_array_elements(p_sample -> 'inputs') with ordinality as i (value, n);
    v_outputs := array(
        select o.value::text::extensions.halfvec from jsonb_array_elements(p_sample -> 'outputs') with ordinality as o (value, n) order by o.n
    );
    -- A vector that is lacking on either side is as far as can be.
    select max(coalesce(f.vector OPERATOR(extensions.<=>) o.vector, 2)) into v_distance
    from unnest(two_tower.infer_sql(p_version, p_tower, v_inputs)) with ordinality as f (vector, n)
    full join unnest(v_outputs) with ordinality as o (vector, n) on o.n = f.n;
    if v_distance <= p_max_distance then
        return;
    end if;
    raise exception 'the rows of the % tower of model % are % (cosine distance) from what the tower answered when it was exported, and may be %',
        p_tower, p_version, v_distance, p_max_distance using errcode = '22023';
end
$func$;

comment on function two_tower.check_rows(text, text, int, jsonb, double precision) is
'Raises 22023 unless the rows of a tower reproduce the sample recorded with it';
