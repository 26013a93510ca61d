drop function if exists public.recommend_videos(
    int, uuid[], real, uuid[], boolean, uuid[], uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[],
    real, real, int, int, timestamptz, uuid
);
drop function if exists public.recommend_videos(int, uuid[], real);
drop function if exists public.recommend_videos(int, uuid[], real, boolean);
create or replace function public.recommend_videos(
    "limit" int default 20, tag_ids uuid[] default null, diversity real default 0, exclude uuid[] default null,
    because boolean default false,
    all_tag_ids uuid[] default null, no_tag_ids uuid[] default null,
    performer_ids uuid[] default null, all_performer_ids uuid[] default null, no_performer_ids uuid[] default null,
    makers text[] default null, no_makers text[] default null, series text[] default null, no_series text[] default null,
    price_min real default null, price_max real default null,
    duration_min int default null, duration_max int default null, released_after timestamptz default null,
    filters text[] default null,
    p_user_id uuid default null
)
returns table (
    video_id uuid, score real, rank int, title text, thumbnail_url text, product_url text, reason text, model_version text,
    list_id uuid, propensity real, because_video_id uuid, because_title text
)
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
#variable_conflict use_column
declare
    v_question two_tower.list_question;
begin
    perform two_tower.acting_user(p_user_id);
    v_question.kind := 'own';
    v_question.user_id := p_user_id;
    v_question.filter := row(
        tag_ids, all_tag_ids, no_tag_ids, performer_ids, all_performer_ids, no_performer_ids, makers, no_makers, series, no_series,
        price_min, price_max, duration_min, duration_max, released_after, filters, null, null, null
    )::two_tower.video_filter;
    v_question.excluded := exclude;
    v_question.diversity := diversity;
    if not coalesce(because, false) then
        return query
        select l.*, null::uuid, null::text from two_tower.list_for_caller(v_question, "limit") l order by l.rank;
        return;
    end if;
    return query
    with list as materialized (
        select l.* from two_tower.list_for_caller(v_question, "limit") l
    )
    select l.*, b.id, b.title::text
    from list l
    left join two_tower.own_reasons(array(select t.video_id from list t where t.reason in ('taste', 'boosted', 'buried', 'fresh')), p_user_id) r on r.video_id = l.video_id
    -- As the caller: what hides a video hides that it is the reason.
    left join public.videos b on b.id = r.because_video_id
    order by l.rank;
end
$func$;

comment on function public.recommend_videos(
    int, uuid[], real, uuid[], boolean, uuid[], uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[],
    real, real, int, int, timestamptz, text[], uuid
) is
'What to show next to the caller, or to the user on whose behalf service_role calls: videos that the caller may see and the user has not '
'decided on, without the excluded, that pass the filters. diversity above 0 trades score for variety; because adds the liked '
'video that adds '
'most to each score';
