drop type two_tower.list_question;

drop table two_tower.impression_users;

drop table two_tower.impressions;
