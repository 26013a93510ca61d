drop function if exists two_tower.halfvec_of(bytea, int, boolean);
-- Anew each time: a superuser keeps both where the rest of ours is handed over, and the owner of the rest may have put another domain there.
drop function if exists two_tower.halfvec_of(two_tower.halfvec_bytes, int, boolean);
drop domain if exists two_tower.halfvec_bytes;

-- As many bytes as they say themselves: what takes them for a vector would read beyond their end.
create domain two_tower.halfvec_bytes as bytea
check (
    octet_length(value) > 4 and octet_length(value) = 4 + 2 * (get_byte(value, 0) + 256 * get_byte(value, 1))
    and substr(value, 3, 2) = '\x0000'
);

comment on domain two_tower.halfvec_bytes is
'What pgvector stores for a halfvec: dimensions and a zero as int16, then half-precision numbers, in the machine''s order';

-- A vector without a detour by text. plpython/inference.py makes the bytes that pgvector itself stores for a halfvec, and
-- pgvector's cast from halfvec to halfvec, which checks the dimensions and hands its argument on, takes them for one. Without a set clause,
-- which would cost more than the call.
create function two_tower.halfvec_of(p_image two_tower.halfvec_bytes, p_dim int, p_explicit boolean) returns extensions.halfvec
language c immutable strict parallel safe security invoker as '$libdir/vector', 'halfvec';

comment on function two_tower.halfvec_of(two_tower.halfvec_bytes, int, boolean) is 'The halfvec whose stored bytes these are';

revoke all on function two_tower.halfvec_of(two_tower.halfvec_bytes, int, boolean) from public;

do $same$
begin
    if extensions.halfvec_send(two_tower.halfvec_of('\x03000000003c00c00028', 3, true))
        is distinct from extensions.halfvec_send('[1,-2,0.03125]'::extensions.halfvec)
    then
        raise exception 'this pgvector, or this machine, stores halfvec otherwise than two_tower.halfvec_of() has it'
            using errcode = '0A000', hint = 'Use pgvector 0.7 or later on a little-endian machine.';
    end if;
end
$same$;
