do $keys$
begin
    perform two_tower.compile_profile_keys();
end
$keys$;

comment on function two_tower.profile_keys(uuid) is
'A row for each key that a user''s profile has in the columns that two_tower.set_profile_inputs() names, by kind: profile_ and the column';
