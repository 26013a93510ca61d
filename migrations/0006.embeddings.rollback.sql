-- Tables of versions that are being backfilled are not attached yet; they are dropped, too.
do $tables$
declare
    v_table text;
begin
    for v_table in
        select c.oid::regclass::text from pg_catalog.pg_class c
        where c.relnamespace = 'two_tower'::regnamespace and c.relkind = 'r' and not c.relispartition
            and c.relname ~ '^(user_embeddings|video_embeddings|video_tastes)_[0-9]+$'
    loop
        execute 'drop table ' || v_table;
    end loop;
end
$tables$;

drop table two_tower.video_tastes;

drop table two_tower.video_embeddings;

drop table two_tower.user_embeddings;

do $names$
declare
    v_name text;
begin
    foreach v_name in array array['user_embeddings', 'video_embeddings'] loop
        if exists (select from two_tower.created_objects where kind = 'renamed relation' and name = 'public.' || v_name) then
            execute 'alter table if exists public.' || v_name || '_before_two_tower rename to ' || v_name;
            delete from two_tower.created_objects where kind = 'renamed relation' and name = 'public.' || v_name;
        end if;
    end loop;
end
$names$;
