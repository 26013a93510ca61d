-- A price as the towers read it: in single precision, and null where it is none, so that every value of every type has an answer. As text_of()
-- otherwise. The numbers are the bounds of what has a value in single precision and of what the tables we make allow. Types that print as
-- the session has it have a function each.
drop function if exists two_tower.price_of(money);
drop function if exists two_tower.price_of(text);
drop function if exists two_tower.price_of(numeric);
drop function if exists two_tower.price_of(double precision);

create or replace function two_tower.price_of(p_value numeric, p_own double precision) returns double precision
language sql immutable parallel safe security invoker
return case when p_value > 1.2e-38 and p_value < 1e12 then p_value::real::double precision when p_value = 0 then 0 end;

create or replace function two_tower.price_of(p_value double precision, p_own double precision) returns double precision
language sql immutable parallel safe security invoker
return case when p_value > 1.2e-38 and p_value < 1e12 then p_value::real::double precision when p_value = 0 then 0 end;

create or replace function two_tower.price_of(p_value real, p_own double precision) returns double precision
language sql immutable parallel safe security invoker
return two_tower.price_of(p_value::double precision, p_own);

create or replace function two_tower.price_of(p_value bigint, p_own double precision) returns double precision
language sql immutable parallel safe security invoker
return two_tower.price_of(p_value::double precision, p_own);

create or replace function two_tower.price_of(p_value int, p_own double precision) returns double precision
language sql immutable parallel safe security invoker
return two_tower.price_of(p_value::double precision, p_own);

create or replace function two_tower.price_of(p_value money, p_own double precision) returns double precision
language sql stable parallel safe security invoker
return two_tower.price_of(p_value::numeric, p_own);

create or replace function two_tower.price_of_word(p_word text) returns double precision
language sql immutable parallel safe security invoker
return case
    when length(p_word) < 500 and p_word collate "C" ~ '^ *[+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,3})? *$'
        then two_tower.price_of(p_word::numeric, 0::double precision)
end;

create or replace function two_tower.price_of(p_value anyelement, p_any int) returns double precision
language sql stable parallel safe security invoker
as $func$ select two_tower.price_of_word(pg_catalog.concat(p_value)) $func$;

create or replace function two_tower.price_of(p_value anyelement) returns double precision
language sql stable parallel safe security invoker
as $func$ select two_tower.price_of(p_value, 0) $func$;

comment on function two_tower.price_of(numeric, double precision) is 'two_tower.price_of() of a numeric';
comment on function two_tower.price_of(double precision, double precision) is 'two_tower.price_of() of a number in double precision';
comment on function two_tower.price_of(real, double precision) is 'two_tower.price_of() of a number in single precision';
comment on function two_tower.price_of(bigint, double precision) is 'two_tower.price_of() of a bigint';
comment on function two_tower.price_of(int, double precision) is 'two_tower.price_of() of an int';
comment on function two_tower.price_of(money, double precision) is 'two_tower.price_of() of money';
comment on function two_tower.price_of_word(text) is 'two_tower.price_of() of a number that is printed so; null for any other text';
comment on function two_tower.price_of(anyelement, int) is 'two_tower.price_of() of anything else';
comment on function two_tower.price_of(anyelement) is
'The price in single precision from a value of any type; null if it is not a number, negative, not below 1e12, or too small';
