-- Extensions stay where the application may have come to use them; only the schema made for them goes, once it is empty.
do $extensions$
begin
    if exists (select from two_tower.created_objects where kind = 'schema' and name = 'extensions')
        and not exists (select from pg_catalog.pg_depend where refobjid = to_regnamespace('extensions') and deptype <> 'e' and classid <> 'pg_catalog.pg_extension'::regclass)
        and not exists (select from pg_catalog.pg_extension where extnamespace = to_regnamespace('extensions'))
    then
        drop schema extensions;
    end if;
end
$extensions$;
