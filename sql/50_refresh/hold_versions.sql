-- So that no vector is missed in a new version, or written to a retired one. A transaction that writes vectors takes a shared lock before it
-- reads the set of live versions, and keeps it until its end. One that changes the set takes it exclusively for the last instant of its
-- transaction (attach_partitions(), retire_model()).
--
-- There are two locks, since a waiting request blocks those behind it. Batches of refreshes, backfills and rebuilds take one of them:
-- they are short, and may wait a little, so a change of the set requests it first and keeps new batches out meanwhile. Clients that
-- call embed_user() take the other, for which a change of the set waits 15 ms at a time.
create or replace function two_tower.hold_versions(p_who text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
-- Waits here are short, and the database's default lock_timeout must not end them.
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
'Until the transaction ends, nobody else writes vectors. 55P03 if somebody has been writing for two seconds';
