-- SECURITY DEFINER: service_role asks for retries, and nobody but the owner may write what is set aside.
create or replace function two_tower.retry_failures() returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_count int;
begin
    select count(*) into v_count from two_tower.change_failures;
    update two_tower.change_failures set retry_at = now() where retry_at > now();
    perform two_tower.requeue_failures();
    return v_count;
end
$func$;

comment on function two_tower.retry_failures() is
'Puts all that is set aside back into the change log, for the next refresh, without waiting for retry_at; how many';
