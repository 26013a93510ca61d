create or replace function two_tower.require_primary(p_routine text) returns void
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    if pg_is_in_recovery() then
        raise exception '% writes, and this server is a standby', p_routine using errcode = '25006', hint = 'Call it on the primary.';
    end if;
end
$func$;

comment on function two_tower.require_primary(text) is
'Raises 25006 on a standby, where a routine that writes cannot work';
