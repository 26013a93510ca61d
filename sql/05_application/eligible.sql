-- One that is there stays: what the owner wrote is not run by whoever migrates.
do $eligible$
begin
    if to_regprocedure('two_tower.eligible(uuid, uuid)') is null then
        perform two_tower.compile_eligible((select r.eligible_when from two_tower.catalogue_rule r));
    end if;
end
$eligible$;

comment on function two_tower.eligible(uuid, uuid) is
'A row where a video may be shown to this user, or to a visitor where null, else none; two_tower.set_eligible_when() says which. '
'To drop or retype a column that the condition names: select two_tower.set_eligible_when(null), change the column, and say it again';
