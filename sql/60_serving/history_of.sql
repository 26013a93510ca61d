drop function if exists two_tower.history_of(uuid);
-- In plpgsql, which keeps the plans: an SQL function that pins its names plans at every call, which takes longer than to read a history.
create or replace function two_tower.history_of(p_user_id uuid, p_version text, out decided uuid[], out liked uuid[], out weights real[])
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
declare
    v_recency double precision := two_tower.recency_of(p_version);
begin
    if v_recency > 0 then
        decided := array(select d.video_id from public.user_video_decisions d where d.user_id = p_user_id);
        select coalesce(array_agg(w.video_id), '{}'), array_agg(w.weight) into liked, weights
        from two_tower.weighted_decisions(p_user_id, v_recency) w where w.liked;
    else
        select coalesce(array_agg(d.video_id), '{}'), coalesce(array_agg(d.video_id) filter (where d.label = 1), '{}'),
            case when bool_or(d.weight <> 1) then array_agg(d.weight) filter (where d.label = 1) end
        into decided, liked, weights
        from two_tower.given_decisions(p_user_id) d;
    end if;
end
$func$;

comment on function two_tower.history_of(uuid, text) is
'A user''s decisions as a list by a version needs them: all the videos, the liked ones, and the weight of each of these in the user''s sum '
'(null: 1)';
