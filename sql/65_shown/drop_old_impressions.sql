-- Dropping a partition takes an exclusive lock on its parent, for a moment, and whoever waits for it makes all writers behind it wait too.
-- It is asked for 15 ms at a time. What does not go today goes tomorrow.
create or replace function two_tower.drop_old_impressions(p_patience interval default '2 seconds') returns int
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    c_until constant timestamptz := clock_timestamp() + p_patience;
    c_timeout constant text := current_setting('lock_timeout');
    c_oldest constant date := (now() at time zone 'UTC')::date - two_tower.model_setting('impressions_kept_days')::int;
    v_days text[] := array(
        select c.relname
        from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'two_tower.impressions'::regclass and right(c.relname, 8) < to_char(c_oldest, 'YYYYMMDD')
        order by c.relname
    );
    v_day text;
    v_dropped int := 0;
begin
    foreach v_day in array v_days loop
        loop
            begin
                perform set_config('lock_timeout', '15ms', true);
                lock table two_tower.impressions in access exclusive mode;
                execute format('drop table two_tower.%I', v_day);
                v_dropped := v_dropped + 1;
                exit;
            exception when lock_not_available or deadlock_detected then
                exit when clock_timestamp() > c_until;
            end;
            perform pg_sleep(0.02 + random() * 0.1);
        end loop;
    end loop;
    perform set_config('lock_timeout', c_timeout, true);
    return v_dropped;
end
$func$;

comment on function two_tower.drop_old_impressions(interval) is
'Drops the partitions of two_tower.impressions that are older than the setting impressions_kept_days, without blocking anybody; how many';
