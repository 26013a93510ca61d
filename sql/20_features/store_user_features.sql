create or replace function two_tower.store_user_features(p_user_ids uuid[], p_counts two_tower.user_counts[]) returns int
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_deleted int;
    v_written int;
begin
    -- A row exists exactly for users who have liked or disliked something.
    delete from two_tower.user_features f
    where f.user_id = any (p_user_ids) and not exists (select from unnest(p_counts) c where c.user_id = f.user_id);
    get diagnostics v_deleted = row_count;

    insert into two_tower.user_features as f (
        user_id, liked_tags, liked_performers, liked_makers, liked_labels, liked_series, liked_sources,
        liked_video_ids, noped_video_ids, like_count, nope_count, price_sum, priced_count
    )
    select c.user_id, c.liked_tags, c.liked_performers, c.liked_makers, c.liked_labels, c.liked_series, c.liked_sources,
        c.liked_video_ids, c.noped_video_ids, c.like_count, c.nope_count, c.price_sum, c.priced_count
    from unnest(p_counts) c
    order by c.user_id
    on conflict (user_id) do update set
        liked_tags = excluded.liked_tags, liked_performers = excluded.liked_performers, liked_makers = excluded.liked_makers,
        liked_labels = excluded.liked_labels, liked_series = excluded.liked_series, liked_sources = excluded.liked_sources,
        liked_video_ids = excluded.liked_video_ids, noped_video_ids = excluded.noped_video_ids,
        like_count = excluded.like_count, nope_count = excluded.nope_count,
        price_sum = excluded.price_sum, priced_count = excluded.priced_count, updated_at = now()
    where (f.liked_tags, f.liked_performers, f.liked_makers, f.liked_labels, f.liked_series, f.liked_sources,
            f.liked_video_ids, f.noped_video_ids, f.like_count, f.nope_count, f.price_sum, f.priced_count)
        is distinct from (excluded.liked_tags, excluded.liked_performers, excluded.liked_makers, excluded.liked_labels,
            excluded.liked_series, excluded.liked_sources, excluded.liked_video_ids, excluded.noped_video_ids,
            excluded.like_count, excluded.nope_count, excluded.price_sum, excluded.priced_count);
    get diagnostics v_written = row_count;
    return v_deleted + v_written;
end
$func$;

comment on function two_tower.store_user_features(uuid[], two_tower.user_counts[]) is
'Makes user_features of these users what was counted, touching only rows that differ; the number of rows touched';
