-- What a decision appends, apart from what refreshes take their batches from.
-- depends: 0011.viewer-role

-- No key and no index: every like pays for what is here, and a refresh reads all of it at once. Where all tables are published, a row
-- can only be deleted if it has an identity. As with user_changes, vacuum leaves the pages; purge_logs() gives them back.
create table two_tower.user_change_log (
    user_id uuid not null,
    logged_at timestamptz not null default now()
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, vacuum_truncate = off);

alter table two_tower.user_change_log replica identity full;

comment on table two_tower.user_change_log is 'Users of changed decisions, as triggers append them';
comment on table two_tower.user_changes is 'Users to refresh: out of user_change_log, likers of changed videos, and those marked';
