-- As price_of().
drop function if exists two_tower.duration_of(text);
drop function if exists two_tower.duration_of(numeric);
drop function if exists two_tower.duration_of(double precision);

create or replace function two_tower.duration_of(p_value numeric, p_own double precision) returns int
language sql immutable parallel safe security invoker
return case when p_value >= 0 and p_value < 2147483647.5 then round(p_value)::int end;

create or replace function two_tower.duration_of(p_value double precision, p_own double precision) returns int
language sql immutable parallel safe security invoker
return case when p_value >= 0 and p_value < 2147483647.5 then round(p_value)::int end;

create or replace function two_tower.duration_of(p_value real, p_own double precision) returns int
language sql immutable parallel safe security invoker
return two_tower.duration_of(p_value::double precision, p_own);

create or replace function two_tower.duration_of(p_value int, p_own double precision) returns int
language sql immutable parallel safe security invoker
return case when p_value >= 0 then p_value end;

create or replace function two_tower.duration_of(p_value money, p_own double precision) returns int
language sql stable parallel safe security invoker
return two_tower.duration_of(p_value::numeric, p_own);

create or replace function two_tower.duration_of_word(p_word text) returns int
language sql immutable parallel safe security invoker
return case
    when length(p_word) < 500 and p_word collate "C" ~ '^ *[+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,3})? *$'
        then two_tower.duration_of(p_word::numeric, 0::double precision)
end;

create or replace function two_tower.duration_of(p_value anyelement, p_any int) returns int
language sql stable parallel safe security invoker
as $func$ select two_tower.duration_of_word(pg_catalog.concat(p_value)) $func$;

create or replace function two_tower.duration_of(p_value anyelement) returns int
language sql stable parallel safe security invoker
as $func$ select two_tower.duration_of(p_value, 0) $func$;

comment on function two_tower.duration_of(numeric, double precision) is 'two_tower.duration_of() of a numeric';
comment on function two_tower.duration_of(double precision, double precision) is 'two_tower.duration_of() of a number in double precision';
comment on function two_tower.duration_of(real, double precision) is 'two_tower.duration_of() of a number in single precision';
comment on function two_tower.duration_of(int, double precision) is 'two_tower.duration_of() of an int';
comment on function two_tower.duration_of(money, double precision) is 'two_tower.duration_of() of money';
comment on function two_tower.duration_of_word(text) is 'two_tower.duration_of() of a number that is printed so; null for any other text';
comment on function two_tower.duration_of(anyelement, int) is 'two_tower.duration_of() of anything else';
comment on function two_tower.duration_of(anyelement) is
'The duration in whole seconds from a value of any type; null if it is not a number, negative, or too large for an int';
