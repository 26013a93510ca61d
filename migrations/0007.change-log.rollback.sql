drop table two_tower.installation;

drop table two_tower.job_runs;

drop table two_tower.change_failures;

drop table two_tower.backfill_changes;

drop table two_tower.video_changes;

drop table two_tower.user_changes;

drop table two_tower.user_change_log;
