drop function if exists two_tower.refresh_videos(uuid[], text[], boolean);
-- A taste is written with the place, so that users whom this transaction logs find both.
create or replace function two_tower.refresh_videos(p_video_ids uuid[], p_versions text[] default null) returns int
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_version text;
    v_given text[] := two_tower.given_versions();
    v_nowhere extensions.halfvec;
    v_rows int;
    v_total int := 0;
begin
    foreach v_version in array coalesce(p_versions, two_tower.live_versions()) loop
        v_nowhere := two_tower.place_of_the_unknown(v_version);
        with computed as materialized (
            select c.* from two_tower.compute_videos(p_video_ids, v_version) c
        ),
        gone as (
            delete from two_tower.video_embeddings e
            where e.model_version = v_version and e.video_id = any (p_video_ids)
                and not exists (select from computed c where c.video_id = e.video_id)
        )
        insert into two_tower.video_embeddings as s (model_version, video_id, embedding, placed)
        select v_version, c.video_id, c.embedding, c.embedding OPERATOR(extensions.<>) v_nowhere from computed c
        on conflict (model_version, video_id) do update
        set embedding = excluded.embedding, placed = excluded.placed, updated_at = now()
        where s.embedding OPERATOR(extensions.<>) excluded.embedding or s.placed <> excluded.placed;
        get diagnostics v_rows = row_count;
        v_total := v_total + v_rows;
        continue when (select m.user_engine from two_tower.model_versions m where m.version = v_version) <> 'sql';
        with computed as materialized (
            select c.* from two_tower.compute_tastes(p_video_ids, v_version) c
        ),
        gone as (
            delete from two_tower.video_tastes t
            where t.model_version = v_version and t.video_id = any (p_video_ids)
                and not exists (select from computed c where c.video_id = t.video_id)
        )
        insert into two_tower.video_tastes as s (model_version, video_id, liked, noped)
        select v_version, c.video_id, c.liked, c.noped from computed c
        on conflict (model_version, video_id) do update
        set liked = excluded.liked, noped = excluded.noped
        where (s.liked is null) <> (excluded.liked is null) or (s.noped is null) <> (excluded.noped is null)
            or s.liked OPERATOR(extensions.<>) excluded.liked or s.noped OPERATOR(extensions.<>) excluded.noped;
    end loop;
    if v_given <> '{}' then
        delete from two_tower.video_embeddings e
        where e.model_version = any (v_given) and e.video_id = any (p_video_ids)
            and not exists (select from public.videos v where v.id = e.video_id);
    end if;
    delete from two_tower.content_vectors c
    where c.video_id = any (p_video_ids) and not exists (select from public.videos v where v.id = c.video_id);
    return v_total;
end
$func$;

comment on function two_tower.refresh_videos(uuid[], text[]) is
'Recomputes the vectors and tastes of these videos from their rows; the number of vectors written. '
'The caller holds their locks, and the versions';
