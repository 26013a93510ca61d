-- SECURITY DEFINER: service_role draws what nobody but the owner may write.
--
-- Once a day (UTC), since a list keeps its answer for as long as what it is drawn from: another call on the same day changes nothing, unless
-- exploration was off.
create or replace function two_tower.draw_exploration() returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    c_most constant int := 500;
    c_today constant date := (now() at time zone 'UTC')::date;
    v_rows int;
begin
    perform pg_advisory_xact_lock(hashtextextended('two_tower.draw_exploration', 0));
    if two_tower.model_setting('exploration_share') = 0 then
        delete from two_tower.exploration_pool e where e.video_id is not null;
        return 0;
    end if;
    if exists (select from two_tower.exploration_pool e where e.drawn_on = c_today) then
        return 0;
    end if;
    -- All of them; Supabase's safeupdate wants a condition.
    delete from two_tower.exploration_pool e where e.video_id is not null;
    insert into two_tower.exploration_pool (video_id, shown, drawn_on)
    select v.id, coalesce(i.shown, 0), c_today
    from two_tower.visible_videos v
    left join (select s.video_id, count(*) as shown from two_tower.impressions s group by s.video_id) as i on i.video_id = v.id
    order by coalesce(i.shown, 0), hashtextextended(concat_ws(' ', v.id, c_today - date '2000-01-01'), 0), v.id
    limit c_most;
    get diagnostics v_rows = row_count;
    return v_rows;
end
$func$;

comment on function two_tower.draw_exploration() is
'Draws the videos that exploration shows today: the 500 with the fewest impressions; how many were drawn. Nothing '
'if the setting exploration_share is 0, or if they were already drawn today';
