create or replace function two_tower.nearest_list(
    p_version text, p_vector extensions.halfvec, p_limit int, p_excluded uuid[], p_tag_ids uuid[], p_diversity real,
    out ids uuid[], out scores real[]
)
language plpgsql stable parallel unsafe security invoker set search_path = ''
as $func$
begin
    -- Diversity chooses among a few times as many as are asked for.
    select array_agg(n.video_id order by n.position), array_agg((1 - n.distance)::real order by n.position) into ids, scores
    from rows from (two_tower.nearest_videos(
        p_version, p_vector, case when p_diversity > 0 then 5 * p_limit else p_limit end, p_excluded, p_tag_ids
    )) with ordinality as n (video_id, distance, position);
    if p_diversity > 0 then
        select array_agg(d.video_id order by d.rank), array_agg(d.score order by d.rank) into ids, scores
        from two_tower.diversify(p_version, ids, scores, p_limit, p_diversity) d;
    end if;
    ids := coalesce(ids, '{}');
    scores := coalesce(scores, '{}');
end
$func$;

comment on function two_tower.nearest_list(text, extensions.halfvec, int, uuid[], uuid[], real) is
'nearest_videos, diversified where that is asked for, as two arrays: videos, best first, and their cosines';
