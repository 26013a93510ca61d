drop function if exists two_tower.rank_similar(uuid, int, real);
create or replace function two_tower.rank_similar(
    p_video_id uuid, p_limit int, p_filter two_tower.video_filter default null, p_diversity real default 0, p_excluded uuid[] default '{}'
)
returns table (video_id uuid, score real, rank int, reason text)
language plpgsql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_version text := two_tower.served_version(auth.uid());
    v_vector extensions.halfvec;
    v_length real;
    v_known boolean := false;
begin
    if not exists (select from two_tower.visible_videos v where v.id = p_video_id) then
        raise exception 'there is no video %', p_video_id using errcode = 'P0002';
    end if;
    -- A video that few people like is placed by its content, since everything else was learnt from them.
    if v_version is not null then
        if two_tower.with_few_likers(array[p_video_id]) <> '{}' then
            select c.embedding into v_vector from two_tower.place_of_content(array[p_video_id], v_version) c;
        else
            select e.embedding into v_vector from two_tower.video_embeddings e where e.model_version = v_version and e.video_id = p_video_id;
            v_known := true;
        end if;
    end if;
    if v_vector is not null then
        -- Unpopular videos are short, and have most of their unit length in the norm dimension, where users have zero. Without it
        -- the query asks what people like who like this video.
        select case when v_norm = 128 then extensions.subvector(v_vector, 1, 127) OPERATOR(extensions.||) '[0]' else v_vector end
        into v_vector
        from (
            select (d.feature_schema ->> 'norm_dimension')::int as v_norm
            from two_tower.model_documents d where d.model_version = v_version
        ) as schema;
        -- What this video's neighbours get from it, for somebody who likes nothing else.
        select extensions.vector_norm(t.liked) into v_length
        from two_tower.compute_tastes(array[p_video_id], v_version) t
        where v_known and exists (select from two_tower.neighbour_lists n where n.model_version = v_version and n.video_id = p_video_id);
    end if;
    return query
    select r.*
    from two_tower.rank_by_vector(
        -- Zero without its norm: nothing is known of the video.
        v_version, case when extensions.l2_norm(v_vector) > 0 then v_vector end, 'similar', p_limit, p_video_id || p_excluded, p_filter, p_diversity,
        case when v_known then array[p_video_id] else '{}' end, null, v_length,
        two_tower.model_setting('least_likers')::int
    ) r;
end
$func$;

comment on function two_tower.rank_similar(uuid, int, two_tower.video_filter, real, uuid[]) is
'The visible videos nearest to a video, without the excluded and those that do not pass the filter, with the reason of each: '
'similar, popular '
'or newest';
