drop table two_tower.video_embeddings;

drop table two_tower.user_embeddings;

do $aside$
declare
    v_table text;
begin
    foreach v_table in array array['user_embeddings', 'video_embeddings'] loop
        if to_regclass('public.' || v_table || '_before_two_tower') is not null then
            execute 'alter table public.' || v_table || '_before_two_tower rename to ' || v_table;
        end if;
    end loop;
end
$aside$;
