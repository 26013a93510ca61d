-- Every input of the towers, and every way in which it can change. A trigger that is in place is left alone: making one waits for whoever
-- writes to the table, and makes others wait behind it.

-- What an adopted table holds was decided before there was a log; the first refresh must find it there.
do $adopted$
begin
    if not exists (
        select from pg_catalog.pg_trigger t
        where t.tgrelid = 'public.user_video_decisions'::regclass and t.tgname in ('two_tower_insert', 'two_tower_row')
    ) then
        -- What creating a trigger takes anyway: nobody decides between this and the triggers below.
        lock table public.user_video_decisions in share row exclusive mode;
        insert into two_tower.user_changes (user_id)
        -- A superuser may be who migrates, and a cast of the application's would run as one: concat() calls none. Whom a word says
        -- nothing of is logged, too, as a cast may say more.
        select distinct d.user_id from public.user_video_decisions d
        where two_tower.label_of_word(concat(d.decision_type)) is distinct from -1;
    end if;
end
$adopted$;

do $triggers$
begin
    perform two_tower.make_triggers();
end
$triggers$;

-- Of a table of ours. Always, so that a subscription's rows are seen, too.
create or replace trigger two_tower_scale before insert or update on two_tower.content_vectors
for each row execute function two_tower.scale_content_vector();

create or replace trigger two_tower_row after insert or update or delete on two_tower.content_vectors
for each row execute function two_tower.log_content_vector();

alter table two_tower.content_vectors enable always trigger two_tower_row;

create or replace trigger two_tower_truncate after truncate on two_tower.content_vectors
for each statement execute function two_tower.log_truncated_videos();

alter table two_tower.content_vectors enable always trigger two_tower_truncate;
