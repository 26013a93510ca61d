-- An existing function stays: the role that migrates does not run the owner's condition.
do $eligible$
begin
    if to_regprocedure('two_tower.eligible(uuid, uuid)') is null then
        perform two_tower.compile_eligible((select r.eligible_when from two_tower.catalogue_rule r));
    end if;
end
$eligible$;

comment on function two_tower.eligible(uuid, uuid) is
'A row if a video may be shown to this user (null: a visitor), else none; two_tower.set_eligible_when() sets the condition. '
'To drop or retype a column that the condition names: select two_tower.set_eligible_when(null), change the column, and set it again';
