-- Drops the tables that the migration created; tables that it found stay as they are.
drop table two_tower.catalogue_rule;

do $tables$
declare
    v_table text;
begin
    foreach v_table in array array['video_performers', 'video_tags', 'performers', 'tags', 'videos'] loop
        if exists (select from two_tower.created_objects where kind = 'table' and name = 'public.' || v_table) then
            execute 'drop table if exists public.' || v_table;
            delete from two_tower.created_objects where kind = 'table' and name = 'public.' || v_table;
        end if;
    end loop;
end
$tables$;
