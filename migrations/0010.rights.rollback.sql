drop table two_tower.user_choices;

drop table two_tower.named_filters;

drop table two_tower.profile_inputs;
