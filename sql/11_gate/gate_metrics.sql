drop function if exists two_tower.gate_metrics(text);
-- Full ranking of held-out likes, K = 20. Either both are measured on the same likes, or both use the record of their own training,
-- never a mixture: the same towers have other figures on newer, or fewer, likes.
create or replace function two_tower.gate_metrics(p_version text, p_measured jsonb default null, p_overrides jsonb default null)
returns text[]
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    -- Given vectors were not measured: a version that replaces them is compared with popularity.
    v_active text := (
        select m.version from two_tower.model_versions m where m.version = two_tower.active_version() and m.user_engine <> 'given'
    );
    v_incumbent text := nullif(v_active, p_version);
    v_anew jsonb := nullif(p_measured -> 'metrics', 'null');
    v_drop double precision := two_tower.gate_setting('gate_max_drop', p_overrides);
    v_over double precision := two_tower.gate_setting('gate_over_popularity', p_overrides);
    v_max_distance double precision := two_tower.gate_setting('gate_max_distance', p_overrides);
    v_metrics jsonb;
    v_reference jsonb;
    v_reasons text[] := '{}';
    v_name text;
    v_least double precision;
    v_own double precision;
    v_other double precision;
    v_popular double precision;
    v_what text;
    v_distance double precision;
begin
    if v_anew is not null then
        v_metrics := v_anew -> p_version;
        v_reference := v_anew #> array[v_incumbent, 'two-tower'];
        if v_incumbent is not null and v_reference is null then
            v_reasons := v_reasons || format('active %s was not measured on the same likes', v_incumbent);
        end if;
    else
        select d.metrics into v_metrics from two_tower.model_documents d where d.model_version = p_version;
        select d.metrics -> 'two-tower' into v_reference from two_tower.model_documents d where d.model_version = v_incumbent;
    end if;
    for v_name, v_least in
        values ('recall@20', two_tower.gate_setting('gate_min_recall_at_20', p_overrides)),
            ('ndcg@20', two_tower.gate_setting('gate_min_ndcg_at_20', p_overrides))
    loop
        v_own := (v_metrics #>> array['two-tower', v_name])::double precision;
        v_popular := (v_metrics #>> array['popularity', v_name])::double precision;
        v_other := case when v_active is null then v_popular else (v_reference ->> v_name)::double precision end;
        if v_own is null then
            v_reasons := v_reasons || format('%s was not measured: there were no likes to hold out', v_name);
            continue;
        end if;
        if not v_own >= v_least then
            v_reasons := v_reasons || format('%s is %s, and must be at least %s', v_name, round(v_own::numeric, 4), round(v_least::numeric, 4));
        end if;
        if v_active is null and v_popular is null then
            v_reasons := v_reasons || format('%s of popularity, which the first model is compared with, was not measured', v_name);
        -- An incumbent that was forced without metrics does not block a version that has them.
        elsif not v_own >= v_other * (1 - v_drop) then
            v_reasons := v_reasons || format(
                '%s is %s, more than %s %% below the %s of %s', v_name, round(v_own::numeric, 4), round((100 * v_drop)::numeric, 1),
                round(v_other::numeric, 4), coalesce('active ' || v_incumbent, 'popularity')
            );
        end if;
        if v_name = 'recall@20' and not v_own >= v_popular * v_over then
            v_reasons := v_reasons || format(
                '%s is %s, and must be at least %s times popularity''s %s', v_name, round(v_own::numeric, 4), v_over, round(v_popular::numeric, 4)
            );
        end if;
    end loop;
    for v_what, v_distance in
        select d.key, d.value::double precision from jsonb_each_text(nullif(p_measured -> 'distances', 'null')) as d where d.value is not null
    loop
        if not v_distance <= v_max_distance then
            v_reasons := v_reasons || format('%s differ by a cosine distance of %s, and may by %s', v_what, v_distance::real, v_max_distance);
        end if;
    end loop;
    return v_reasons;
end
$func$;

comment on function two_tower.gate_metrics(text, jsonb, jsonb) is
'Reasons why a version''s metrics are too bad to replace the active one or, as the first, to beat popularity; none if they suffice. '
'p_measured: metrics by version, its own and the active one''s, if they were measured again on the same likes (else the recorded ones '
'count), and distances by what was compared. p_overrides: gate settings for this call';
