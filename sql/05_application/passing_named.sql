-- An existing function stays: the role that migrates does not run the owner's conditions.
do $named$
begin
    if to_regprocedure('two_tower.passing_named(text, uuid)') is null then
        perform two_tower.compile_filters();
    end if;
end
$named$;

comment on function two_tower.passing_named(text, uuid) is
'A row if a video passes the filter of this name, else none; two_tower.set_filter() defines it. To drop or retype a column that a '
'filter names: select two_tower.set_filter(name, null), change the column, and define it again';
