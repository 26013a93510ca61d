-- SECURITY DEFINER: service_role asks, which may neither call what compiles filters nor read all that the owner's condition reads.
create or replace function two_tower.allowed_videos(p_user_id uuid, p_video_ids uuid[]) returns uuid[]
language plpgsql stable parallel unsafe security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
declare
    c_filter constant two_tower.video_filter := two_tower.compile_filter(null, p_user_id);
begin
    if c_filter is null then
        return p_video_ids;
    end if;
    return array(
        select v.id from unnest(p_video_ids) as v (id)
        where (select f.passes from two_tower.passing(c_filter, v.id) as f (passes))
    );
end
$func$;

comment on function two_tower.allowed_videos(uuid, uuid[]) is
'Those of the videos that a list may show to the user, by what the user chose never to see and by the owner''s condition on who may '
'see what';
