comment on table two_tower.user_changes is 'Users whose inputs changed since they were last refreshed';

insert into two_tower.user_changes (user_id, logged_at)
select user_id, min(logged_at) from two_tower.user_change_log group by user_id;

drop table two_tower.user_change_log;
