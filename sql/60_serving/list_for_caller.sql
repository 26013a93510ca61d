drop function if exists two_tower.list_for_caller(text, uuid, int, uuid[], real);
-- A list as the caller may see it. Candidates come from routines that run as the owner; videos are read as the caller, so that the
-- application's policies and grants apply, whatever they are. If these hide some of the candidates, more are fetched: a
-- list is short only if few videos are left to show.
create or replace function two_tower.list_for_caller(p_question two_tower.list_question, p_limit int) returns table (
    video_id uuid, score real, rank int, title text, thumbnail_url text, product_url text, reason text, model_version text,
    list_id uuid, propensity real
)
language plpgsql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
-- Off, a policy would be an error.
set row_security = on
as $func$
#variable_conflict use_column
declare
    v_most int;
    v_asked int := p_limit;
    v_ids uuid[];
    v_scores real[];
    v_reasons text[];
    v_propensities real[];
    v_version text;
    v_seen boolean[];
    v_titles text[];
    v_thumbnails text[];
    v_products text[];
    v_shown int;
    v_list_id uuid;
begin
    perform two_tower.require_page(p_limit, 0, 200);
    if (p_question).kind = 'similar' and not exists (select from public.videos v where v.id = (p_question).video_id) then
        raise exception 'there is no video %', coalesce((p_question).video_id::text, 'null') using errcode = 'P0002';
    end if;
    -- What the caller may not see says nothing, not even that it exists.
    if (p_question).kind = 'session' then
        perform two_tower.require_session((p_question).liked, (p_question).noped);
        p_question.liked := array(select v.id from public.videos v where v.id = any ((p_question).liked));
        p_question.noped := array(select v.id from public.videos v where v.id = any ((p_question).noped));
    end if;
    -- As require_candidates() has it.
    v_most := case when (p_question).diversity > 0 then 10 * p_limit else 20000 end;
    loop
        select array_agg(c.video_id), array_agg(c.score), array_agg(c.reason), array_agg(c.propensity), min(c.model_version),
            array_agg(c.seen), array_agg(c.title), array_agg(c.thumbnail_url), array_agg(c.product_url), count(*) filter (where c.seen)
        into v_ids, v_scores, v_reasons, v_propensities, v_version, v_seen, v_titles, v_thumbnails, v_products, v_shown
        from (
            select l.video_id, l.score, l.reason, l.propensity, l.model_version, v.id is not null as seen,
                v.title, v.thumbnail_url, v.product_url
            from two_tower.steer_list(p_question, v_asked) l
            -- Limited, so that each is looked up, and not the catalogue read for all.
            left join lateral (
                select w.id, w.title::text as title, w.thumbnail_url::text as thumbnail_url, w.product_url::text as product_url
                from public.videos w where w.id = l.video_id limit 1
            ) as v on true
            order by l.rank
            offset 0
        ) as c;
        exit when v_shown >= p_limit or v_asked >= v_most or coalesce(cardinality(v_ids), 0) < v_asked;
        v_asked := least(10 * v_asked, v_most);
    end loop;
    v_list_id := two_tower.list_id(coalesce((p_question).user_id, auth.uid()), v_version, v_ids, (p_question).filter);
    return query
    select c.id,
        -- Without a vector a score is the inverse of a rank: of the rank here, as that among all would count what is hidden.
        case when c.score is null or c.reason in ('popular', 'newest', 'trending') then (1.0 / c.place)::real else c.score end,
        c.place::int, c.title, c.thumbnail_url, c.product_url, c.reason, v_version, v_list_id, c.propensity
    from (
        select l.*, row_number() over (order by l.n) as place
        from unnest(v_ids, v_scores, v_reasons, v_propensities, v_seen, v_titles, v_thumbnails, v_products)
            with ordinality as l (id, score, reason, propensity, seen, title, thumbnail_url, product_url, n)
        where l.seen
    ) as c
    order by c.place
    limit p_limit;
end
$func$;

comment on function two_tower.list_for_caller(two_tower.list_question, int) is
'The result of steer_list(), restricted to videos that the caller may read, with the id of the list and the propensity of each. '
'22023 for an argument out of bounds, P0002 for a video that the caller cannot see';
