drop table two_tower.exploration_pool;

drop table two_tower.promotions;

drop type two_tower.list_question;

drop type two_tower.video_filter;

drop table two_tower.impression_users;

drop table two_tower.impressions;
