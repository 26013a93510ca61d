drop table two_tower.video_popularity;

drop type two_tower.video_counts;

drop type two_tower.user_counts;

drop table two_tower.reviews;

do $tables$
declare
    v_name text;
begin
    for v_name in select split_part(name, '.', 2) from two_tower.created_objects where kind = 'column' loop
        execute 'alter table public.user_features drop column ' || v_name;
    end loop;
    foreach v_name in array array['user_features', 'user_video_decisions', 'profiles'] loop
        if exists (select from two_tower.created_objects where kind = 'table' and name = 'public.' || v_name) then
            execute 'drop table public.' || v_name;
            delete from two_tower.created_objects where kind = 'table' and name = 'public.' || v_name;
        end if;
    end loop;
    delete from two_tower.created_objects where kind = 'column';
end
$tables$;
