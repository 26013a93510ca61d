create or replace function two_tower.named_id(p_kind text, p_name text) returns uuid
language plpgsql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_digest text := md5(decode('5b8f1d3e6f0a4c7b9d2e8a1c3f507264', 'hex') || convert_to(p_kind || ' ' || p_name, 'UTF8'));
begin
    -- RFC 9562, version 3: MD5 of a namespace of ours and the name, with version and variant in their places.
    return overlay(
        overlay(v_digest placing '3' from 13)
        placing substr('89ab', 1 + (('x' || substr(v_digest, 17, 1))::bit(4)::int & 3), 1) from 17
    )::uuid;
end
$func$;

comment on function two_tower.named_id(text, text) is
'The id of an imported video, tag or performer: the same name has the same id in every database, so models can travel between them';
