-- The job creates partitions in advance. If one is missing, its first writer creates it: attaching a partition takes a lock for which only
-- another attachment waits, not readers or writers.
create or replace function two_tower.make_impression_day(p_day date) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    c_name constant text := 'impressions_' || to_char(p_day, 'YYYYMMDD');
begin
    if to_regclass('two_tower.' || c_name) is not null then
        return;
    end if;
    perform pg_advisory_xact_lock(hashtextextended('two_tower.impressions', 0));
    -- Somebody else was at it. Asked of the table, since what the session knows of names may be older than the lock.
    if exists (select from pg_catalog.pg_class c where c.relname = c_name and c.relnamespace = 'two_tower'::regnamespace) then
        return;
    end if;
    execute format('create table two_tower.%I (like two_tower.impressions including all)', c_name);
    execute format('comment on table two_tower.%I is %L', c_name, 'What was shown on ' || p_day || ', a partition of two_tower.impressions');
    perform two_tower.close_partition(c_name);
    execute format(
        'alter table two_tower.impressions attach partition two_tower.%I for values from (%L) to (%L)', c_name,
        p_day || ' 00:00:00+00', p_day + 1 || ' 00:00:00+00'
    );
end
$func$;

comment on function two_tower.make_impression_day(date) is
'Creates the partition of two_tower.impressions for a day (UTC), unless it exists';
