-- A decision's own weight: from 0.01 to 10, which the check of a table of ours allows, and 1 if it has none. An
-- application's column may hold anything, and what lies outside is taken for the nearer end. As text_of() otherwise; types that print as the
-- session has it have a function each.
create or replace function two_tower.weight_of(p_value real, p_own double precision) returns real
language sql immutable parallel safe security invoker
return case when p_value <> 'NaN' then least(greatest(p_value, 0.01::real), 10) else 1 end;

create or replace function two_tower.weight_of(p_value double precision, p_own double precision) returns real
language sql immutable parallel safe security invoker
return case when p_value <> 'NaN' then least(greatest(p_value, 0.01), 10)::real else 1 end;

create or replace function two_tower.weight_of(p_value numeric, p_own double precision) returns real
language sql immutable parallel safe security invoker
return case when p_value <> 'NaN' then least(greatest(p_value, 0.01), 10)::real else 1 end;

create or replace function two_tower.weight_of_word(p_word text) returns real
language sql immutable parallel safe security invoker
return case
    when length(p_word) < 500 and p_word collate "C" ~ '^ *[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,3})? *$'
        then two_tower.weight_of(p_word::numeric, 0::double precision)
    else 1
end;

create or replace function two_tower.weight_of(p_value anyelement, p_any int) returns real
language sql stable parallel safe security invoker
as $func$ select two_tower.weight_of_word(pg_catalog.concat(p_value)) $func$;

create or replace function two_tower.weight_of(p_value anyelement) returns real
language sql stable parallel safe security invoker
as $func$ select two_tower.weight_of(p_value, 0) $func$;

comment on function two_tower.weight_of(real, double precision) is 'two_tower.weight_of() of a number in single precision';
comment on function two_tower.weight_of(double precision, double precision) is 'two_tower.weight_of() of a number in double precision';
comment on function two_tower.weight_of(numeric, double precision) is 'two_tower.weight_of() of a numeric';
comment on function two_tower.weight_of_word(text) is 'two_tower.weight_of() of a number that is printed so; 1 for any other text';
comment on function two_tower.weight_of(anyelement, int) is 'two_tower.weight_of() of anything else';
comment on function two_tower.weight_of(anyelement) is
'A decision''s own weight from a value of any type, from 0.01 to 10; 1 if it is not a number';
