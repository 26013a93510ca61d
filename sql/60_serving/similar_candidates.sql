-- SECURITY DEFINER: it reads vectors, which anon may not; it gives away the order of the catalogue and nothing of any user. Limits are set here, as in
-- own_candidates().
create or replace function two_tower.similar_candidates(p_video_id uuid, p_limit int, p_diversity real)
returns table (video_id uuid, score real, rank int, reason text, model_version text)
language plpgsql stable parallel unsafe security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_version text := two_tower.active_version();
begin
    perform two_tower.require_candidates(p_limit, p_diversity);
    return query
    select r.video_id, r.score, r.rank, r.reason, v_version
    from two_tower.rank_similar(p_video_id, p_limit, p_diversity) r;
end
$func$;

comment on function two_tower.similar_candidates(uuid, int, real) is 'The videos nearest to a video, before the caller''s own view of them';
