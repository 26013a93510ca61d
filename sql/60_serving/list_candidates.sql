drop function if exists two_tower.own_candidates(int, uuid[], real);
drop function if exists two_tower.similar_candidates(uuid, int, real);
-- SECURITY DEFINER: it reads vectors and popularity, which clients may not. What it gives away is, of a list of one's own, the caller's taste;
-- of the others the order of the catalogue and nothing of any user. Ids and scores, which the caller's routine joins to what the caller may
-- read. PostgREST does not show it, but a login of one's own can call it, so limits are set here.
create or replace function two_tower.list_candidates(p_question two_tower.list_question, p_limit int)
returns table (video_id uuid, score real, rank int, reason text, model_version text)
language plpgsql stable parallel unsafe security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
declare
    v_user_id uuid := case (p_question).kind when 'own' then two_tower.acting_user((p_question).user_id) else auth.uid() end;
    v_version text := two_tower.served_version(v_user_id);
    v_excluded uuid[] := array(select e.id from unnest((p_question).excluded) as e (id) where e.id is not null);
    v_filter two_tower.video_filter := two_tower.compile_filter((p_question).filter, v_user_id);
    v_liked uuid[];
    v_noped uuid[];
begin
    if cardinality((p_question).excluded) > 20000 then
        raise exception 'at most 20000 videos can be left out of a list' using errcode = '22023';
    end if;
    perform two_tower.require_candidates(p_limit, (p_question).diversity);
    case (p_question).kind
        when 'own' then
            if (p_question).user_id is not null then
                perform two_tower.require_visible_when();
            end if;
            return query
            select r.video_id, r.score, r.rank, r.reason, v_version
            from two_tower.rank_videos(v_user_id, p_limit, v_filter, (p_question).diversity, v_excluded, v_version) r;
        when 'similar' then
            return query
            select r.video_id, r.score, r.rank, r.reason, v_version
            from two_tower.rank_similar((p_question).video_id, p_limit, v_filter, (p_question).diversity, v_excluded) r;
        when 'session' then
            perform two_tower.require_session((p_question).liked, (p_question).noped);
            v_liked := array(select distinct e.id from unnest((p_question).liked) as e (id) where e.id is not null);
            v_noped := array(select distinct e.id from unnest((p_question).noped) as e (id) where e.id is not null);
            return query
            select r.video_id, r.score, r.rank, r.reason, v_version
            from two_tower.rank_session(v_liked, v_noped, p_limit, v_filter, (p_question).diversity, v_excluded) r;
        when 'popular', 'trending' then
            return query
            select r.video_id, r.score, r.rank, r.reason, v_version
            from two_tower.rank_popular(
                p_limit, case (p_question).kind when 'trending' then (p_question).days end, v_filter, v_excluded
            ) r;
        else
            raise exception 'there is no list of kind %', coalesce((p_question).kind, 'null') using errcode = '22023';
    end case;
end
$func$;

comment on function two_tower.list_candidates(two_tower.list_question, int) is
'The best videos for a list, before they are restricted to those that the caller may read; 22023 for an argument out of '
'bounds, 28000 for a '
'personal list if nobody is signed in';
