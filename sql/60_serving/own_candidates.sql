-- SECURITY DEFINER: it reads vectors and popularity, which clients may not; for the caller alone. Ids and scores, which the caller's
-- routine joins to what the caller may read. PostgREST does not show it, but a login of one's own can call it, so limits are set here.
create or replace function two_tower.own_candidates(p_limit int, p_tag_ids uuid[], p_diversity real)
returns table (video_id uuid, score real, rank int, reason text, model_version text)
language plpgsql stable parallel unsafe security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
declare
    v_version text := two_tower.active_version();
begin
    if auth.uid() is null then
        raise exception 'not signed in' using errcode = '28000';
    end if;
    if cardinality(p_tag_ids) > 100 then
        raise exception 'at most 100 tags can be asked for at once' using errcode = '22023';
    end if;
    perform two_tower.require_candidates(p_limit, p_diversity);
    return query
    select r.video_id, r.score, r.rank, r.reason, v_version
    from two_tower.rank_videos(auth.uid(), p_limit, p_tag_ids, p_diversity) r;
end
$func$;

comment on function two_tower.own_candidates(int, uuid[], real) is 'The best videos for the caller, before the caller''s own view of them';
