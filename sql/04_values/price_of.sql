-- A price as the towers read it: in single precision, and null where it is none, so that every number and every text has an answer.
-- As decision_label() otherwise. The numbers are the bounds of what has a value in single precision and of what the tables we make allow.
create or replace function two_tower.price_of(p_value numeric) returns double precision
language sql immutable parallel safe security invoker
return case when p_value > 1.2e-38 and p_value < 1e12 then p_value::real::double precision when p_value = 0 then 0 end;

create or replace function two_tower.price_of(p_value double precision) returns double precision
language sql immutable parallel safe security invoker
return case when p_value > 1.2e-38 and p_value < 1e12 then p_value::real::double precision when p_value = 0 then 0 end;

create or replace function two_tower.price_of(p_value money) returns double precision
language sql stable parallel safe security invoker
return two_tower.price_of(p_value::numeric);

create or replace function two_tower.price_of(p_value text) returns double precision
language sql immutable parallel safe security invoker
return case
    when p_value collate "C" ~ '^ *[+]?([0-9]{1,100}[.]?[0-9]{0,100}|[.][0-9]{1,100})([eE][+-]?[0-9]{1,3})? *$'
        then two_tower.price_of(p_value::numeric)
end;

create or replace function two_tower.price_of(p_value anyelement) returns double precision
language sql stable parallel safe security invoker
as $func$ select two_tower.price_of(p_value::pg_catalog.text) $func$;

comment on function two_tower.price_of(numeric) is
'The price in single precision; null where it is negative, not below 1e12, or too small to have a value there';
comment on function two_tower.price_of(double precision) is 'The same of other numbers';
comment on function two_tower.price_of(money) is 'The same of money';
comment on function two_tower.price_of(text) is 'The same of a number written as text; null for any other text';
comment on function two_tower.price_of(anyelement) is 'The same of what else can be written as text';
