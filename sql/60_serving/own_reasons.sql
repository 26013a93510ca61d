drop function if exists two_tower.own_reasons(uuid[]);
-- SECURITY DEFINER: it reads places and tastes, which clients may not; of the caller's own likes alone, or a user's for service_role, for videos that may be shown.
create or replace function two_tower.own_reasons(p_video_ids uuid[], p_user_id uuid default null)
returns table (video_id uuid, because_video_id uuid)
language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
declare
    c_most constant int := 2000;
    c_user_id constant uuid := two_tower.acting_user(p_user_id);
    c_version constant text := two_tower.served_version(c_user_id);
    v_recency double precision;
    v_liked uuid[];
    v_weights real[];
begin
    if cardinality(p_video_ids) > c_most then
        raise exception 'at most % videos can be asked for at once', c_most using errcode = '22023';
    end if;
    if cardinality(p_video_ids) = 0 or two_tower.personalised(array[c_user_id]) = '{}' then
        return;
    end if;
    -- Not as an argument below, where it would be asked for with every decision.
    v_recency := two_tower.recency_of(c_version);
    select array_agg(d.video_id), array_agg(d.weight) into v_liked, v_weights
    from two_tower.weighted_decisions(c_user_id, v_recency) d where d.liked;
    return query select r.* from two_tower.like_reasons(c_version, p_video_ids, v_liked, v_weights, '{}') r;
end
$func$;

comment on function two_tower.own_reasons(uuid[], uuid) is
'For each of these videos, the video liked by the caller or user that adds most to its score; '
'no row if none adds, or if the towers are not sums';
