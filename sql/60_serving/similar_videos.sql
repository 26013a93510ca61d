drop function if exists public.similar_videos(
    uuid, int, real, uuid[], uuid[], uuid[], uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[],
    real, real, int, int, timestamptz
);
drop function if exists public.similar_videos(uuid, int, real);
-- In SQL, because the contract calls both an argument and a column video_id, which plpgsql refuses.
create or replace function public.similar_videos(
    video_id uuid, "limit" int default 20, diversity real default 0, tag_ids uuid[] default null, exclude uuid[] default null,
    all_tag_ids uuid[] default null, no_tag_ids uuid[] default null,
    performer_ids uuid[] default null, all_performer_ids uuid[] default null, no_performer_ids uuid[] default null,
    makers text[] default null, no_makers text[] default null, series text[] default null, no_series text[] default null,
    price_min real default null, price_max real default null,
    duration_min int default null, duration_max int default null, released_after timestamptz default null,
    filters text[] default null
)
returns table (
    video_id uuid, score real, rank int, title text, thumbnail_url text, product_url text, reason text, model_version text,
    list_id uuid, propensity real
)
language sql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select l.*
    from two_tower.list_for_caller(
        row(
            'similar', $1, null, null, null,
            row($4, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, null, null, null)::two_tower.video_filter, $5, $3, null
        ),
        $2
    ) l
    order by l.rank
$func$;

comment on function public.similar_videos(
    uuid, int, real, uuid[], uuid[], uuid[], uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[],
    real, real, int, int, timestamptz, text[]
) is
'Videos nearest to a video, of those that the caller may see, rank 1 first, without the excluded, that pass the filters. '
'diversity above 0 trades score for variety';
