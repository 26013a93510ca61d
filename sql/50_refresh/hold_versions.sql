-- No vector is missed in a version that comes, or written to one that goes. Whoever writes vectors holds the set of live versions before
-- reading it, and until the end of the transaction; whoever changes the set has it alone for an instant, which is the last one of the
-- transaction (attach_partitions(), retire_model()).
--
-- There are two locks, since a waiting request makes those behind it wait. Batches of refreshes, backfills and rebuilds hold one of them:
-- they are short, and may wait a little, so a change of the set asks for it first and keeps new batches out meanwhile. Clients who
-- embed themselves hold the other, which is asked for 15 ms at a time.
create or replace function two_tower.hold_versions(p_who text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
-- Those who wait here wait a moment, whatever the database has for a default.
set lock_timeout = 0
as $func$
begin
    perform pg_advisory_xact_lock_shared(hashtextextended('two_tower.versions ' || p_who, 0));
end
$func$;

create or replace function two_tower.close_versions() returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    c_until constant timestamptz := clock_timestamp() + interval '2 seconds';
    c_timeout constant text := current_setting('lock_timeout');
begin
    perform set_config('lock_timeout', '2s', true);
    perform pg_advisory_xact_lock(hashtextextended('two_tower.versions batch', 0));
    perform set_config('lock_timeout', '15ms', true);
    loop
        begin
            perform pg_advisory_xact_lock(hashtextextended('two_tower.versions client', 0));
            exit;
        exception when lock_not_available then
            if clock_timestamp() > c_until then
                raise;
            end if;
        end;
        perform pg_sleep(0.02 + random() * 0.02);
    end loop;
    perform set_config('lock_timeout', c_timeout, true);
end
$func$;

comment on function two_tower.hold_versions(text) is
'Until the transaction ends, the set of live versions stays as it is read from now on; p_who: batch, or client for one user''s own call';
comment on function two_tower.close_versions() is
'Until the transaction ends, nobody writes vectors. 55P03 where somebody has been at it for two seconds';
