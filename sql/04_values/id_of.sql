-- An id of the application, which triggers log. If it is not a uuid, since the application has changed the column's type, the result is the id
-- that stands for anybody: the write succeeds, and the refresh finds out who it was. Otherwise as text_of().
create or replace function two_tower.id_of(p_value uuid, p_own double precision) returns uuid
language sql immutable parallel safe security invoker
return p_value;

create or replace function two_tower.id_of_word(p_word text) returns uuid
language sql immutable parallel safe security invoker
return case
    -- One pattern for all of it takes four times as long.
    when p_word collate "C" like '________-____-____-____-____________' and length(replace(p_word, '-', '')) = 32
        and p_word collate "C" !~ '[^0-9A-Fa-f-]'
        then p_word::uuid
    else '00000000-0000-0000-0000-000000000000'::uuid
end;

create or replace function two_tower.id_of(p_value anyelement, p_any int) returns uuid
language sql stable parallel safe security invoker
as $func$ select two_tower.id_of_word(pg_catalog.concat(p_value)) $func$;

create or replace function two_tower.id_of(p_value anyelement) returns uuid
language sql stable parallel safe security invoker
as $func$ select two_tower.id_of(p_value, 0) $func$;

comment on function two_tower.id_of(uuid, double precision) is 'two_tower.id_of() of an id';
comment on function two_tower.id_of_word(text) is 'two_tower.id_of() of what is printed so';
comment on function two_tower.id_of(anyelement, int) is 'two_tower.id_of() of anything else';
comment on function two_tower.id_of(anyelement) is
'The id from a value of any type; 00000000-0000-0000-0000-000000000000 if it has none';
