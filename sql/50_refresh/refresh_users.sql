create or replace function two_tower.refresh_users(p_user_ids uuid[], p_versions text[] default null, p_force boolean default false)
returns int
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_versions text[] := coalesce(p_versions, two_tower.live_versions());
    v_written int;
begin
    -- Rows of features are compressed when they are long; the default method takes as long as all the counting.
    begin
        perform set_config('default_toast_compression', 'lz4', true);
    exception
        when invalid_parameter_value then null;  -- this server was built without it
    end;
    with computed as materialized (
        select * from two_tower.compute_users(p_user_ids, v_versions, p_force, true, not p_force)
    ),
    without_features as (
        -- A row exists exactly for users who have liked or disliked something.
        delete from two_tower.user_features f
        where f.user_id = any (p_user_ids) and not exists (select from computed c where c.user_id = f.user_id)
    ),
    features as (
        insert into two_tower.user_features as f (
            user_id, liked_tags, liked_performers, liked_makers, liked_labels, liked_series, liked_sources,
            liked_video_ids, noped_video_ids, like_count, nope_count, price_sum, priced_count
        )
        select c.user_id, c.liked_tags, c.liked_performers, c.liked_makers, c.liked_labels, c.liked_series, c.liked_sources,
            two_tower.uuids_of(c.liked_video_ids, -1, true), two_tower.uuids_of(c.noped_video_ids, -1, true), c.like_count, c.nope_count, c.price_sum, c.priced_count
        from computed c
        where c.model_version is null
        on conflict (user_id) do update set
            liked_tags = excluded.liked_tags, liked_performers = excluded.liked_performers, liked_makers = excluded.liked_makers,
            liked_labels = excluded.liked_labels, liked_series = excluded.liked_series, liked_sources = excluded.liked_sources,
            liked_video_ids = excluded.liked_video_ids, noped_video_ids = excluded.noped_video_ids,
            like_count = excluded.like_count, nope_count = excluded.nope_count,
            price_sum = excluded.price_sum, priced_count = excluded.priced_count, updated_at = now()
        where (f.like_count, f.nope_count, f.price_sum, f.priced_count, f.liked_video_ids, f.noped_video_ids,
                f.liked_makers, f.liked_labels, f.liked_series, f.liked_sources, f.liked_tags, f.liked_performers)
            is distinct from (excluded.like_count, excluded.nope_count, excluded.price_sum, excluded.priced_count,
                excluded.liked_video_ids, excluded.noped_video_ids, excluded.liked_makers, excluded.liked_labels,
                excluded.liked_series, excluded.liked_sources, excluded.liked_tags, excluded.liked_performers)
    ),
    without_vectors as (
        delete from two_tower.user_embeddings e
        where e.model_version = any (v_versions) and e.user_id = any (p_user_ids)
            and not exists (select from computed c where c.user_id = e.user_id and c.model_version = e.model_version)
    ),
    vectors as (
        insert into two_tower.user_embeddings as s (model_version, user_id, embedding, input_hash, input)
        select c.model_version, c.user_id,
            -- Bytes of another length are no vector, and a null is refused.
            case when octet_length(c.image) = 2 * 130 then two_tower.halfvec_of(c.image, 128, true) end, c.input_hash, c.input
        from computed c
        where c.image is not null
        on conflict (model_version, user_id) do update
        set embedding = excluded.embedding, input_hash = excluded.input_hash, input = excluded.input, updated_at = now()
        where s.input_hash <> excluded.input_hash or s.embedding OPERATOR(extensions.<>) excluded.embedding
            or s.input is distinct from excluded.input
        returning 1
    )
    select count(*) into v_written from vectors;
    return v_written;
end
$func$;

comment on function two_tower.refresh_users(uuid[], text[], boolean) is
'Makes features and vectors of these users what their rows say; the number of vectors written. The caller holds their locks';
