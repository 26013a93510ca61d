-- Every input of the towers, and every way in which it can change.

-- What an adopted table holds was decided before there was a log; the first refresh must find it there.
do $adopted$
begin
    if not exists (
        select from pg_catalog.pg_trigger t
        where t.tgrelid = 'public.user_video_decisions'::regclass and t.tgname = 'two_tower_insert'
    ) then
        -- What creating a trigger takes anyway: nobody decides between this and the triggers below.
        lock table public.user_video_decisions in share row exclusive mode;
        insert into two_tower.user_changes (user_id)
        select distinct d.user_id from public.user_video_decisions d where d.decision_type::text <> 'skip';
    end if;
end
$adopted$;

create or replace trigger two_tower_insert after insert on public.user_video_decisions
referencing new table as new_rows for each statement execute function two_tower.log_inserted_decisions();

create or replace trigger two_tower_update after update on public.user_video_decisions
referencing old table as old_rows new table as new_rows for each statement execute function two_tower.log_updated_decisions();

create or replace trigger two_tower_delete after delete on public.user_video_decisions
referencing old table as old_rows for each statement execute function two_tower.log_deleted_decisions();

create or replace trigger two_tower_truncate after truncate on public.user_video_decisions
for each statement execute function two_tower.log_truncated_decisions();

create or replace trigger two_tower_insert after insert on public.videos
referencing new table as new_rows for each statement execute function two_tower.log_inserted_videos();

create or replace trigger two_tower_update after update on public.videos
referencing old table as old_rows new table as new_rows for each statement execute function two_tower.log_updated_videos();

create or replace trigger two_tower_delete after delete on public.videos
referencing old table as old_rows for each statement execute function two_tower.log_deleted_videos();

create or replace trigger two_tower_truncate after truncate on public.videos
for each statement execute function two_tower.log_truncated_videos();

do $triggers$
declare
    v_table text;
begin
    foreach v_table in array array['video_tags', 'video_performers'] loop
        execute format('create or replace trigger two_tower_insert after insert on public.%I referencing new table as new_rows for each statement execute function two_tower.log_inserted_attributes()', v_table);
        execute format('create or replace trigger two_tower_update after update on public.%I referencing old table as old_rows new table as new_rows for each statement execute function two_tower.log_updated_attributes()', v_table);
        execute format('create or replace trigger two_tower_delete after delete on public.%I referencing old table as old_rows for each statement execute function two_tower.log_deleted_attributes()', v_table);
        execute format('create or replace trigger two_tower_truncate after truncate on public.%I for each statement execute function two_tower.log_truncated_videos()', v_table);
    end loop;
end
$triggers$;
