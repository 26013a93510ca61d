drop table two_tower.user_choices;

drop table two_tower.named_filters;
