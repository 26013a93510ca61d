-- One that is there stays: what the owner wrote is not run by whoever migrates.
do $named$
begin
    if to_regprocedure('two_tower.passing_named(text, uuid)') is null then
        perform two_tower.compile_filters();
    end if;
end
$named$;

comment on function two_tower.passing_named(text, uuid) is
'A row where a video passes the filter of this name, else none; two_tower.set_filter() says what it is. To drop or retype a column that a '
'filter names: select two_tower.set_filter(name, null), change the column, and say it again';
