create or replace function public.trending_videos(
    "limit" int default 20, "window" interval default '7 days', tag_ids uuid[] default null, exclude uuid[] default null
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
    v_question.tag_ids := tag_ids;
    v_question.diversity := 0;
    v_question.excluded := exclude;
    return query select l.* from two_tower.list_for_caller(v_question, "limit") l order by l.rank;
end
$func$;

comment on function public.trending_videos(int, interval, uuid[], uuid[]) is
'What most people have liked in the last day, 7 or 30 days, as counted with popularity, of what the caller may see; then what is '
'popular, then the newest. No entry is there for the likes of fewer people than the setting least_likers';
