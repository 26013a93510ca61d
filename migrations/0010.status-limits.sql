-- What two_tower.problems holds the system to.
-- depends: 0009.stored-inputs

insert into two_tower.settings values
('status_max_lag_seconds', '120', 'How long a change may wait in the log before two_tower.problems names it, in seconds'),
('status_expects_jobs', 'true', 'Whether two_tower.problems names jobs that pg_cron lacks; false where another scheduler refreshes');
