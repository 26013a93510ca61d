-- A list of ids without a detour by text, as halfvec_of(): what a length of varchar is cast with hands its argument on where there
-- is no limit, so here it takes bytes for an array. It checks nothing, and nobody but the owner may call it.
create or replace function two_tower.uuids_of(p_image bytea, p_limit int, p_explicit boolean) returns uuid[]
language internal immutable strict parallel safe security invoker as 'varchar';

comment on function two_tower.uuids_of(bytea, int, boolean) is
'The array whose stored bytes these are: dimensions, 0, type, length and lower bound as int32, then the ids; p_limit is -1';

revoke all on function two_tower.uuids_of(bytea, int, boolean) from public;

do $same$
begin
    if array_send(two_tower.uuids_of('\x0100000000000000860b00000200000001000000' || decode(repeat('0123456789abcdef', 4), 'hex'), -1, true))
        is distinct from array_send(array['01234567-89ab-cdef-0123-456789abcdef', '01234567-89ab-cdef-0123-456789abcdef']::uuid[])
        or two_tower.uuids_of('\x0000000000000000860b0000', -1, true) is distinct from '{}'
    then
        raise exception 'this PostgreSQL, or this machine, stores uuid[] otherwise than two_tower.uuids_of() has it'
            using errcode = '0A000', hint = 'A little-endian machine is needed.';
    end if;
end
$same$;
