-- SECURITY DEFINER: who runs in the background is shown to those who may read statistics.
create or replace function two_tower.cron_running() returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    -- The launcher starts when a standby is promoted.
    if pg_is_in_recovery() or not two_tower.may_use_cron() or not pg_has_role(current_user, 'pg_read_all_stats', 'usage') then
        return null;
    end if;
    return exists (select from pg_catalog.pg_stat_activity a where a.backend_type = 'pg_cron launcher');
end
$func$;

comment on function two_tower.cron_running() is
'Whether pg_cron''s launcher runs: terminating all sessions of a database ends it too, and it does not restart by itself; '
'null if there is none, on a standby, or if the caller cannot see it';
