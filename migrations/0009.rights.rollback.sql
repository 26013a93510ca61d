drop table two_tower.user_choices;
