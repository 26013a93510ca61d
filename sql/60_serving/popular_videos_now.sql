create or replace function public.popular_videos_now("limit" int default 20, tag_ids uuid[] default null, exclude uuid[] default null)
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
    v_question.kind := 'popular';
    v_question.tag_ids := tag_ids;
    v_question.diversity := 0;
    v_question.excluded := exclude;
    return query select l.* from two_tower.list_for_caller(v_question, "limit") l order by l.rank;
end
$func$;

comment on function public.popular_videos_now(int, uuid[], uuid[]) is
'The most popular videos of those that the caller may see, then the newest. What fewer people like than the '
'setting least_likers is not popular';
