create or replace function public.next_videos("limit" int default 20)
returns table (
    video_id uuid, score real, rank int, title text, thumbnail_url text, product_url text, reason text, model_version text,
    list_id uuid, propensity real
)
language plpgsql volatile parallel unsafe security invoker set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
#variable_conflict use_column
declare
    v_question two_tower.list_question;
begin
    if auth.uid() is null then
        raise exception 'not signed in' using errcode = '28000';
    end if;
    perform two_tower.require_page("limit", 0, 200);
    v_question.kind := 'own';
    v_question.diversity := 0;
    v_question.excluded := two_tower.shown_lately();
    return query
    with page as materialized (
        select l.* from two_tower.list_for_caller(v_question, "limit") l
    ),
    logged as materialized (
        select public.log_shown(coalesce(jsonb_agg(to_jsonb(p)), '[]')) as rows from page p
    )
    select p.* from page p where (select l.rows from logged l) is not null order by p.rank;
end
$func$;

comment on function public.next_videos(int) is
'The next page for the caller, remembered as shown: what recommend_videos() would give without what was shown within the setting '
'shown_again_after_hours';
