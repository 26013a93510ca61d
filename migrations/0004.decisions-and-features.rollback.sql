drop table two_tower.video_trends;

drop table two_tower.video_popularity;

drop type two_tower.user_counts;

drop table two_tower.content_vectors;

drop table two_tower.reviews;

do $tables$
declare
    v_table text;
begin
    foreach v_table in array array['two_tower.user_features', 'public.user_features', 'public.user_video_decisions', 'public.profiles'] loop
        if exists (select from two_tower.created_objects where kind = 'table' and name = v_table) then
            execute 'drop table if exists ' || v_table;
            delete from two_tower.created_objects where kind = 'table' and name = v_table;
        end if;
    end loop;
    if exists (select from two_tower.created_objects where kind = 'renamed relation' and name = 'public.user_features') then
        alter table if exists public.user_features_before_two_tower rename to user_features;
        delete from two_tower.created_objects where kind = 'renamed relation' and name = 'public.user_features';
    end if;
end
$tables$;
