-- A vector without a detour by text. plpython/inference.py makes the bytes that pgvector itself stores for a halfvec, and
-- pgvector's cast from halfvec to halfvec, which checks the dimensions and hands its argument on, takes them for one. It checks
-- nothing else, so nobody but the owner may call this, and callers see to the length. Without a set clause, which would cost more
-- than the call.
create or replace function two_tower.halfvec_of(p_image bytea, p_dim int, p_explicit boolean) returns extensions.halfvec
language c immutable strict parallel safe security invoker as '$libdir/vector', 'halfvec';

comment on function two_tower.halfvec_of(bytea, int, boolean) is
'The halfvec whose stored bytes these are: dimensions and a zero as int16, then half-precision numbers, in the machine''s order';

revoke all on function two_tower.halfvec_of(bytea, int, boolean) from public;

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
