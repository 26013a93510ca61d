-- Metrics as the trainer recorded them: full ranking of held-out likes, K = 20.
create or replace function two_tower.gate_metrics(p_version text) returns text[]
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    c_names constant text[] := array['recall@20', 'ndcg@20'];
    v_metrics jsonb := (select d.metrics from two_tower.model_documents d where d.model_version = p_version);
    v_incumbent text := two_tower.active_version();
    v_drop double precision := two_tower.model_setting('gate_max_drop');
    v_reference jsonb;
    v_reasons text[] := '{}';
    v_name text;
    v_own double precision;
    v_other double precision;
begin
    v_reference := case
        when v_incumbent is null then v_metrics -> 'popularity'
        else (select d.metrics -> 'two-tower' from two_tower.model_documents d where d.model_version = v_incumbent)
    end;
    if v_incumbent = p_version then
        return v_reasons;
    end if;
    foreach v_name in array c_names loop
        v_own := (v_metrics #>> array['two-tower', v_name])::double precision;
        v_other := (v_reference ->> v_name)::double precision;
        if v_own is null then
            v_reasons := v_reasons || format('%s was not measured', v_name);
        elsif v_other is null then
            -- An incumbent that was forced without metrics is no bar to one that has them.
            if v_incumbent is null then
                v_reasons := v_reasons || format('%s of popularity, which the first model is compared with, was not measured', v_name);
            end if;
        elsif not v_own >= v_other * (1 - v_drop) then
            v_reasons := v_reasons || format(
                '%s is %s, more than %s %% below the %s of %s', v_name, round(v_own::numeric, 4), round((100 * v_drop)::numeric, 1),
                round(v_other::numeric, 4), coalesce('active ' || v_incumbent, 'popularity')
            );
        end if;
    end loop;
    return v_reasons;
end
$func$;

comment on function two_tower.gate_metrics(text) is
'Reasons why a version''s recorded metrics do not let it replace the active one or, as the first, beat popularity; none if they do';
