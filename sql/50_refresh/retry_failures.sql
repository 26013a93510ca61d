-- SECURITY DEFINER: as refresh_batch.
create or replace function two_tower.retry_failures() returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_count int;
begin
    update two_tower.change_failures set retry_at = now();
    get diagnostics v_count = row_count;
    perform two_tower.requeue_failures();
    return v_count;
end
$func$;

comment on function two_tower.retry_failures() is
'Puts all that is set aside back into the change log, for the next refresh, without waiting for retry_at; how many';
