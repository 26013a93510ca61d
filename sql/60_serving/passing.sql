-- Whether a video passes a filter: a row, or none. The one place that defines what a filter means.
--
-- A body of text without a set clause, which the planner puts in place of the call; qualified throughout. Columns that the application may
-- drop are named without their table: as for triggers (sql/40_changes/log_user_changes.sql), one that is absent is found beside it. Sub-selects
-- with a limit look up a row for each video; exists() would be hashed, with all that carry a tag.
create or replace function two_tower.passing(p_filter two_tower.video_filter, p_video_id uuid) returns setof boolean
language sql stable parallel safe security invoker
as $func$
    select true
    from (
        select null::pg_catalog.text as maker, null::pg_catalog.text as series, null::pg_catalog.float8 as price,
            null::pg_catalog.int4 as duration_seconds, null::pg_catalog.timestamptz as product_released_at,
            null::pg_catalog.timestamptz as distribution_started_at
    ) as absent
    cross join lateral (
        select two_tower.text_of(maker) as maker, two_tower.text_of(series) as series, two_tower.price_of(price) as price,
            two_tower.duration_of(duration_seconds) as duration,
            coalesce(two_tower.time_of(product_released_at), two_tower.time_of(distribution_started_at)) as released
        from public.videos
        where id operator(pg_catalog.=) p_video_id
    ) as v
    where ((p_filter).makers is null or v.maker collate "C" operator(pg_catalog.=) any ((p_filter).makers))
        and ((p_filter).no_makers is null or (v.maker collate "C" operator(pg_catalog.=) any ((p_filter).no_makers)) is not true)
        and ((p_filter).series is null or v.series collate "C" operator(pg_catalog.=) any ((p_filter).series))
        and ((p_filter).no_series is null or (v.series collate "C" operator(pg_catalog.=) any ((p_filter).no_series)) is not true)
        and ((p_filter).price_min is null or v.price operator(pg_catalog.>=) (p_filter).price_min)
        and ((p_filter).price_max is null or v.price operator(pg_catalog.<=) (p_filter).price_max)
        and ((p_filter).duration_min is null or v.duration operator(pg_catalog.>=) (p_filter).duration_min)
        and ((p_filter).duration_max is null or v.duration operator(pg_catalog.<=) (p_filter).duration_max)
        and ((p_filter).released_after is null or v.released operator(pg_catalog.>) (p_filter).released_after)
        and ((p_filter).filters is null or (
            select true from pg_catalog.unnest((p_filter).filters) as f (name)
            where (select n.passes from two_tower.passing_named(f.name, p_video_id) as n (passes)) is null limit 1
        ) is null)
        and ((p_filter).by_viewer is not true or (select e.may from two_tower.eligible((p_filter).viewer_id, p_video_id) as e (may)))
        and ((p_filter).tag_ids is null or (
            select true from public.video_tags t
            where t.video_id operator(pg_catalog.=) p_video_id and t.tag_id operator(pg_catalog.=) any ((p_filter).tag_ids) limit 1
        ))
        and ((p_filter).no_tag_ids is null or (
            select true from public.video_tags t
            where t.video_id operator(pg_catalog.=) p_video_id and t.tag_id operator(pg_catalog.=) any ((p_filter).no_tag_ids) limit 1
        ) is null)
        and ((p_filter).all_tag_ids is null or (
            select true from pg_catalog.unnest((p_filter).all_tag_ids) as a (id)
            where (
                select true from public.video_tags t
                where t.video_id operator(pg_catalog.=) p_video_id and t.tag_id operator(pg_catalog.=) a.id limit 1
            ) is null limit 1
        ) is null)
        and ((p_filter).performer_ids is null or (
            select true from public.video_performers t
            where t.video_id operator(pg_catalog.=) p_video_id and t.performer_id operator(pg_catalog.=) any ((p_filter).performer_ids) limit 1
        ))
        and ((p_filter).no_performer_ids is null or (
            select true from public.video_performers t
            where t.video_id operator(pg_catalog.=) p_video_id and t.performer_id operator(pg_catalog.=) any ((p_filter).no_performer_ids)
            limit 1
        ) is null)
        and ((p_filter).all_performer_ids is null or (
            select true from pg_catalog.unnest((p_filter).all_performer_ids) as a (id)
            where (
                select true from public.video_performers t
                where t.video_id operator(pg_catalog.=) p_video_id and t.performer_id operator(pg_catalog.=) a.id limit 1
            ) is null limit 1
        ) is null)
$func$;

comment on function two_tower.passing(two_tower.video_filter, uuid) is 'A row where the video passes the filter, else none';
