-- SECURITY DEFINER: jobs run as whoever schedules them, and refreshing takes the owner's rights.
create or replace function two_tower.schedule_jobs() returns table (job text, schedule text, command text)
language plpgsql volatile security definer set search_path = ''
as $func$
begin
    if to_regprocedure('cron.schedule(text, text, text)') is null then
        raise exception 'pg_cron is not installed in this database' using errcode = '55000',
            hint = 'Add pg_cron to shared_preload_libraries, set cron.database_name to this database, restart, and migrate again; or call two_tower.refresh() from a scheduler of your own.';
    end if;
    -- pg_cron does not start a job while its last run goes on, and refresh() ends within its time box.
    return query
    select j.job, j.schedule, j.command
    from (
        values ('two_tower_refresh', '* * * * *', 'call two_tower.refresh()'),
            ('two_tower_sync_users', '7 * * * *', 'select two_tower.sync_user_embeddings()'),
            ('two_tower_sync_videos', '17 3 * * *', 'select two_tower.sync_video_embeddings()'),
            ('two_tower_popularity', '37 3 * * *', 'select two_tower.update_popularity()'),
            ('two_tower_purge', '57 3 * * *', 'select two_tower.purge_logs()')
    ) as j (job, schedule, command)
    cross join lateral cron.schedule(j.job, j.schedule, j.command) as id
    where id is not null;
end
$func$;

comment on function two_tower.schedule_jobs() is
'Puts the jobs into pg_cron: refresh every minute, users hourly, videos, popularity and purge daily. Doing it again changes nothing';
