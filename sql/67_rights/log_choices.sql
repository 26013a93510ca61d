-- What a user chooses is an input of features and vectors like any other. Row by row, and always, so that a subscription's rows are seen, too.
create or replace trigger two_tower_row after insert or update or delete on two_tower.user_choices
for each row execute function two_tower.log_row('user_id');

alter table two_tower.user_choices enable always trigger two_tower_row;
