-- A version that is still being backfilled is not complete, and need not be.
create or replace function two_tower.coverage_problems(
    p_version text, p_state text, p_backfilled boolean, p_missing_videos bigint, p_missing_users bigint
) returns table (what text, detail text, remedy text)
language sql immutable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select 'coverage',
        format('model %s (%s) lacks the vectors of %s %ss, and the change log has none of them', p_version, p_state, l.missing, l.kind),
        case l.kind when 'video' then 'select two_tower.sync_video_embeddings()' else 'two-tower refresh --min-likes 1' end
    from (values ('video', p_missing_videos), ('user', p_missing_users)) as l (kind, missing)
    where (p_backfilled or p_state <> 'staged') and l.missing > 0
$func$;

comment on function two_tower.coverage_problems(text, text, boolean, bigint, bigint) is
'The rows of two_tower.problems that follow from a row of two_tower.coverage';
