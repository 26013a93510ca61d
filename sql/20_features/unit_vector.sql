-- Every vector comes in through this, so that how far two videos are from each other is the angle between them, whatever scale an encoder
-- has. What has length 1 already stays as it is, to the bit: a copy of it is no change.
create or replace function two_tower.unit_vector(p_vector real[]) returns real[]
language plpgsql immutable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_vector extensions.vector;
begin
    if cardinality(p_vector) not between 1 and 2000 or array_ndims(p_vector) > 1 then
        raise exception 'a vector has from 1 to 2,000 numbers, and this one %', cardinality(p_vector) using errcode = '22023';
    end if;
    if exists (select from unnest(p_vector) as n (value) where n.value is null or n.value in ('NaN', 'Infinity', '-Infinity')) then
        raise exception 'the vector has what is no number' using errcode = '22023';
    end if;
    v_vector := p_vector::extensions.vector;
    if extensions.vector_norm(v_vector) = 0 then
        raise exception 'the vector has no direction: all of its numbers are zero' using errcode = '22023';
    end if;
    return case
        when abs(extensions.vector_norm(v_vector) - 1) < 1e-6 then p_vector else extensions.l2_normalize(v_vector)::real[]
    end;
end
$func$;

comment on function two_tower.unit_vector(real[]) is 'The same direction, of length 1; 22023 if there is none';
