drop function if exists public.trending_videos(
    int, interval, uuid[], uuid[], uuid[], uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[],
    real, real, int, int, timestamptz
);
create or replace function public.trending_videos(
    "limit" int default 20, "window" interval default '7 days', tag_ids uuid[] default null, exclude uuid[] default null,
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
language plpgsql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
#variable_conflict use_column
declare
    v_question two_tower.list_question;
begin
    v_question.kind := 'trending';
    v_question.days := case "window" when interval '1 day' then 1 when interval '7 days' then 7 when interval '30 days' then 30 end;
    if v_question.days is null then
        raise exception 'window must be 1 day, 7 days or 30 days, not %', coalesce("window"::text, 'null') using errcode = '22023';
    end if;
    v_question.filter := row(
        tag_ids, all_tag_ids, no_tag_ids, performer_ids, all_performer_ids, no_performer_ids, makers, no_makers, series, no_series,
        price_min, price_max, duration_min, duration_max, released_after, filters, null, null, null
    )::two_tower.video_filter;
    v_question.diversity := 0;
    v_question.excluded := exclude;
    return query select l.* from two_tower.list_for_caller(v_question, "limit") l order by l.rank;
end
$func$;

comment on function public.trending_videos(
    int, interval, uuid[], uuid[], uuid[], uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[],
    real, real, int, int, timestamptz, text[]
) is
'Videos that most people have liked in the last day, 7 or 30 days, as counted with popularity, of those that the caller may see; then '
'popular ones, then the newest. Likes of fewer people than the setting least_likers do not count';
