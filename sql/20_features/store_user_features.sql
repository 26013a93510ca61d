drop function if exists two_tower.store_user_features(uuid[], two_tower.user_counts[]);
create or replace function two_tower.store_user_features(p_user_ids uuid[]) returns int
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_deleted int;
    v_written int;
begin
    -- Rows of features are compressed when they are long; the default method takes as long as all the counting.
    begin
        perform set_config('default_toast_compression', 'lz4', true);
    exception
        when invalid_parameter_value then null;  -- this server was built without it
    end;
    with counted as materialized (
        select c.* from two_tower.count_user_features(p_user_ids) c
    ),
    gone as (
        -- A row exists exactly for users who have liked or disliked something.
        delete from two_tower.user_features f
        where f.user_id = any (p_user_ids) and not exists (select from counted c where c.user_id = f.user_id)
        returning 1
    ),
    written as (
        insert into two_tower.user_features as f (
            user_id, liked_tags, liked_performers, liked_makers, liked_labels, liked_series, liked_sources,
            liked_video_ids, noped_video_ids, like_count, nope_count, price_sum, priced_count
        )
        select c.user_id, c.liked_tags, c.liked_performers, c.liked_makers, c.liked_labels, c.liked_series, c.liked_sources,
            c.liked_video_ids, c.noped_video_ids, c.like_count, c.nope_count, c.price_sum, c.priced_count
        from counted c
        order by c.user_id
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
        returning 1
    )
    select (select count(*) from gone), (select count(*) from written) into v_deleted, v_written;
    return v_deleted + v_written;
end
$func$;

comment on function two_tower.store_user_features(uuid[]) is
'Makes user_features of these users what their rows say, touching only rows that differ; the number of rows touched';
