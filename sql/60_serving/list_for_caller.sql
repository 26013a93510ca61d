drop function if exists two_tower.list_for_caller(text, uuid, int, uuid[], real);
-- A list as the caller may see it. Candidates come from routines that run as the owner; videos are read as the caller, so that the
-- application's policies and grants on them hold, whatever they are. Where these hide some of the candidates, more are asked for: a
-- list is short only where little is left to be shown.
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
        select array_agg(c.video_id order by c.rank), array_agg(c.score order by c.rank), array_agg(c.reason order by c.rank),
            array_agg(c.propensity order by c.rank), min(c.model_version)
        into v_ids, v_scores, v_reasons, v_propensities, v_version
        from two_tower.steer_list(p_question, v_asked) c;
        select count(*) into v_shown from unnest(v_ids) as c (id) join public.videos v on v.id = c.id;
        exit when v_shown >= p_limit or v_asked >= v_most or coalesce(cardinality(v_ids), 0) < v_asked;
        v_asked := least(10 * v_asked, v_most);
    end loop;
    v_list_id := two_tower.list_id(coalesce((p_question).user_id, auth.uid()), v_version, v_ids, (p_question).filter);
    return query
    -- Without a vector a score is the inverse of a rank: of the rank here, as that among all would count what is hidden.
    select c.id, case when c.score is null or c.reason in ('popular', 'newest', 'trending') then (1.0 / row_number() over (order by c.n))::real else c.score end,
        row_number() over (order by c.n)::int, v.title::text, v.thumbnail_url::text, v.product_url::text,
        c.reason, v_version, v_list_id, c.propensity
    from unnest(v_ids, v_scores, v_reasons, v_propensities) with ordinality as c (id, score, reason, propensity, n)
    join public.videos v on v.id = c.id
    order by c.n
    limit p_limit;
end
$func$;

comment on function two_tower.list_for_caller(two_tower.list_question, int) is
'What steer_list() finds, of the videos that the caller may read, with the id of the list and how likely each was to stand there. '
'22023 for an argument out of bounds, P0002 for a video that the caller cannot see';
