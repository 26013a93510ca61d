-- Takes from the role what it has in this database; the role itself stays where another database of the cluster uses it.
drop owned by two_tower_viewer;

do $viewer$
begin
    drop role two_tower_viewer;
exception when dependent_objects_still_exist then null;
end
$viewer$;
