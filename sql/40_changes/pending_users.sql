create or replace view two_tower.pending_users with (security_invoker = true) as
select l.user_id, l.logged_at from two_tower.user_change_log l
union all
select c.user_id, c.logged_at from two_tower.user_changes c;

comment on view two_tower.pending_users is 'Users waiting for a refresh, a row for each change, and since when';
