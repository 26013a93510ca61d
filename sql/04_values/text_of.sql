-- A value of the application as text, whatever type its column has: now, or after the application has changed it.
--
-- The functions here have no SET clause, so that the planner puts them in place of their calls and they cost what their expressions do. Bodies
-- that are no strings are bound to what they name when they are made; others qualify every name.
--
-- What is called is the function of one argument, which takes every type. It calls one of those of two: the one of the value's own type, or
-- else the one of any type. The second argument decides which, and is not read. Without it, a call with a type that has an implicit cast
-- ("char", an enum with a cast that the application made) would not be unique; with it, the function for any type fits such a call
-- in one argument, and the others in none. Where a function has the value's own type, both fit in one, and that double precision is the
-- preferred type of numbers tips the scales.
--
-- concat() prints a value and calls no cast: one of the application's may fail, or find its own functions no longer under our path.
create or replace function two_tower.text_of(p_value text, p_own double precision) returns text
language sql immutable parallel safe security invoker
return p_value;

create or replace function two_tower.text_of(p_value varchar, p_own double precision) returns text
language sql immutable parallel safe security invoker
return p_value::text;

create or replace function two_tower.text_of(p_value char, p_own double precision) returns text
language sql immutable parallel safe security invoker
return p_value::text;

create or replace function two_tower.text_of(p_value anyelement, p_any int) returns text
language sql stable parallel safe security invoker
as $func$ select case when p_value is not null then pg_catalog.concat(p_value) end $func$;

create or replace function two_tower.text_of(p_value anyelement) returns text
language sql stable parallel safe security invoker
as $func$ select two_tower.text_of(p_value, 0) $func$;

comment on function two_tower.text_of(text, double precision) is 'two_tower.text_of() of a text';
comment on function two_tower.text_of(varchar, double precision) is 'two_tower.text_of() of a text of limited length';
comment on function two_tower.text_of(char, double precision) is
'two_tower.text_of() of a text of fixed length, without the blanks that fill it';
comment on function two_tower.text_of(anyelement, int) is 'two_tower.text_of() of anything else';
comment on function two_tower.text_of(anyelement) is 'How a value of any type prints, without the blanks that fill a text of fixed length';
