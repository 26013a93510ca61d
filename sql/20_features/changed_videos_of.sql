-- What a refresh keeps of a video is what the rows said then. Where a change of it is in the log, or was set aside, the rows have to be asked.
create or replace function two_tower.changed_videos_of(p_user_ids uuid[]) returns uuid[]
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp set plan_cache_mode = 'force_generic_plan'
as $func$
declare
    -- What triggers log where the column that says which video is absent.
    c_somebody constant uuid := '00000000-0000-0000-0000-000000000000';
begin
    -- By the indexes: after many videos have changed, the tables have many pages of nothing.
    if not exists (select from (select c.video_id from two_tower.video_changes c order by c.video_id, c.id limit 1) as c)
        and not exists (select from (select f.id from two_tower.change_failures f where f.kind = 'video' order by f.kind, f.id limit 1) as f)
    then
        return '{}'::uuid[];
    end if;
    return array(
        select distinct d.video_id
        from public.user_video_decisions d
        where d.user_id = any (p_user_ids) and two_tower.decision_label(d.decision_type) <> -1
            and (
                exists (select from two_tower.video_changes c where c.video_id in (d.video_id, c_somebody))
                or exists (select from two_tower.change_failures f where f.kind = 'video' and f.id in (d.video_id, c_somebody))
            )
    );
end
$func$;

comment on function two_tower.changed_videos_of(uuid[]) is
'The videos that these users decided on and that changed since they were last refreshed';
