drop function if exists public.next_videos(
    int, uuid[], uuid[], uuid[], uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[],
    real, real, int, int, timestamptz
);
create or replace function public.next_videos(
    "limit" int default 20, tag_ids uuid[] default null, exclude uuid[] default null,
    because boolean default false,
    all_tag_ids uuid[] default null, no_tag_ids uuid[] default null,
    performer_ids uuid[] default null, all_performer_ids uuid[] default null, no_performer_ids uuid[] default null,
    makers text[] default null, no_makers text[] default null, series text[] default null, no_series text[] default null,
    price_min real default null, price_max real default null,
    duration_min int default null, duration_max int default null, released_after timestamptz default null,
    filters text[] default null
)
returns table (
    video_id uuid, score real, rank int, title text, thumbnail_url text, product_url text, reason text, model_version text,
    list_id uuid, propensity real, because_video_id uuid, because_title text
)
language plpgsql volatile parallel unsafe security invoker set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
#variable_conflict use_column
declare
    v_question two_tower.list_question;
begin
    perform two_tower.require_primary('next_videos()');
    if auth.uid() is null then
        raise exception 'not signed in' using errcode = '28000';
    end if;
    perform two_tower.require_page("limit", 0, 200);
    v_question.kind := 'own';
    v_question.diversity := 0;
    v_question.excluded := two_tower.shown_lately() || array(select unnest(exclude));
    v_question.filter := row(
        tag_ids, all_tag_ids, no_tag_ids, performer_ids, all_performer_ids, no_performer_ids, makers, no_makers, series, no_series,
        price_min, price_max, duration_min, duration_max, released_after, filters, null, null, null
    )::two_tower.video_filter;
    -- To begin a statement with what reasons take costs a few percent of a page.
    if not coalesce(because, false) then
        return query
        with page as materialized (
            select l.* from two_tower.list_for_caller(v_question, "limit") l
        ),
        logged as materialized (
            select two_tower.keep_shown(array_agg(
                row(null, null, p.list_id, p.video_id, p.rank, p.model_version, p.reason, p.propensity)::two_tower.impressions
            )) as rows
            from page p
        )
        select p.*, null::uuid, null::text from page p where (select l.rows from logged l) is not null order by p.rank;
        return;
    end if;
    return query
    with page as materialized (
        select l.* from two_tower.list_for_caller(v_question, "limit") l
    ),
    logged as materialized (
        select two_tower.keep_shown(array_agg(
            row(null, null, p.list_id, p.video_id, p.rank, p.model_version, p.reason, p.propensity)::two_tower.impressions
        )) as rows
        from page p
    )
    select p.*, b.id, b.title::text
    from page p
    left join two_tower.own_reasons(
        array(select t.video_id from page t where t.reason in ('taste', 'boosted', 'buried', 'fresh'))
    ) r on r.video_id = p.video_id
    left join public.videos b on b.id = r.because_video_id
    where (select l.rows from logged l) is not null
    order by p.rank;
end
$func$;

comment on function public.next_videos(
    int, uuid[], uuid[], boolean, uuid[], uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[],
    real, real, int, int, timestamptz, text[]
) is
'The next page for the caller, remembered as shown: what recommend_videos() would give without what was shown within the setting '
'shown_again_after_hours; because adds the liked video that adds most to each score';
