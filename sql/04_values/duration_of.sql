-- As price_of().
create or replace function two_tower.duration_of(p_value numeric) returns int
language sql immutable parallel safe security invoker
return case when p_value >= 0 and p_value < 2147483647.5 then round(p_value)::int end;

create or replace function two_tower.duration_of(p_value double precision) returns int
language sql immutable parallel safe security invoker
return case when p_value >= 0 and p_value < 2147483647.5 then round(p_value)::int end;

create or replace function two_tower.duration_of(p_value text) returns int
language sql immutable parallel safe security invoker
return case
    when p_value collate "C" ~ '^ *[+]?([0-9]{1,100}[.]?[0-9]{0,100}|[.][0-9]{1,100})([eE][+-]?[0-9]{1,3})? *$'
        then two_tower.duration_of(p_value::numeric)
end;

create or replace function two_tower.duration_of(p_value anyelement) returns int
language sql stable parallel safe security invoker
as $func$ select two_tower.duration_of(p_value::pg_catalog.text) $func$;

comment on function two_tower.duration_of(numeric) is 'The duration in whole seconds; null where it is negative, not finite, or no int';
comment on function two_tower.duration_of(double precision) is 'The same of other numbers';
comment on function two_tower.duration_of(text) is 'The same of a number written as text; null for any other text';
comment on function two_tower.duration_of(anyelement) is 'The same of what else can be written as text';
