drop function if exists two_tower.uuids_of(bytea, int, boolean);
-- Anew each time, as halfvec_of().
drop function if exists two_tower.uuids_of(two_tower.uuids_bytes, two_tower.no_limit, boolean);
drop domain if exists two_tower.uuids_bytes, two_tower.no_limit;

-- One dimension from 1 on, no nulls, type uuid, and as many ids as they say themselves; or no dimension.
create domain two_tower.uuids_bytes as bytea
check (
    value = '\x0000000000000000860b0000'
    or octet_length(value) >= 20 and substr(value, 1, 12) = '\x0100000000000000860b0000' and substr(value, 17, 4) = '\x01000000'
    and octet_length(value) - 20 = 16 * (
        get_byte(value, 12) + 256 * get_byte(value, 13) + 65536 * get_byte(value, 14) + 16777216::bigint * get_byte(value, 15)
    )
);

-- With a limit, bytes would be cut off.
create domain two_tower.no_limit as int check (value = -1);

comment on domain two_tower.uuids_bytes is
'What PostgreSQL stores for an array of uuid: dimensions, 0, type, length and lower bound as int32, then the ids';
comment on domain two_tower.no_limit is 'The limit of a varchar that has none: -1';

-- A list of ids without a detour by text, as halfvec_of(): what a length of varchar is cast with hands its argument on where there
-- is no limit, so here it takes bytes for an array.
create function two_tower.uuids_of(p_image two_tower.uuids_bytes, p_limit two_tower.no_limit, p_explicit boolean) returns uuid[]
language internal immutable strict parallel safe security invoker as 'varchar';

comment on function two_tower.uuids_of(two_tower.uuids_bytes, two_tower.no_limit, boolean) is 'The array whose stored bytes these are';

revoke all on function two_tower.uuids_of(two_tower.uuids_bytes, two_tower.no_limit, boolean) from public;

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
