do $keys$
begin
    perform two_tower.compile_profile_keys();
end
$keys$;

comment on function two_tower.profile_keys(uuid) is
'A row for each key of a user''s profile in the columns named by two_tower.set_profile_inputs(), by kind: profile_ and the column';
