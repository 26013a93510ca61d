create or replace function two_tower.job_definitions() returns table (job text, cron_name text, schedule text, command text)
language sql immutable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    -- pg_cron does not start a job while its last run goes on, and refresh() ends within its time box.
    values ('refresh', 'two_tower_refresh', '* * * * *', 'call two_tower.refresh()'),
        ('sync_user_embeddings', 'two_tower_sync_users', '7 * * * *', 'select two_tower.sync_user_embeddings()'),
        ('sync_video_embeddings', 'two_tower_sync_videos', '17 3 * * *', 'select two_tower.sync_video_embeddings()'),
        ('update_popularity', 'two_tower_popularity', '37 3 * * *', 'select two_tower.update_popularity()'),
        ('verify', 'two_tower_verify', '47 3 * * *', 'select two_tower.verify_sample()'),
        ('purge_logs', 'two_tower_purge', '57 3 * * *', 'select two_tower.purge_logs()')
$func$;

comment on function two_tower.job_definitions() is 'The jobs: their names in the job log and in pg_cron, their schedules and commands';
