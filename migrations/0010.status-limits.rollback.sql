delete from two_tower.settings where name in ('status_max_lag_seconds', 'status_expects_jobs');
