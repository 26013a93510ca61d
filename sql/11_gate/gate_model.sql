drop function if exists two_tower.gate_model(text);
-- SECURITY DEFINER: service_role operates the models without owning the tables.
create or replace function two_tower.gate_model(p_version text, p_measured jsonb default null, p_overrides jsonb default null) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_sample int := two_tower.gate_setting('gate_sample', p_overrides);
    v_given boolean := coalesce((select m.user_engine from two_tower.model_versions m where m.version = p_version) = 'given', false);
    v_reasons text[] := '{}';
    v_coverage record;
    v_distance double precision;
    v_recall double precision;
    v_max_distance double precision := two_tower.gate_setting('gate_max_distance', p_overrides);
    v_min_recall double precision := two_tower.gate_setting('gate_min_recall', p_overrides);
    v_max_drop double precision := two_tower.gate_setting('gate_max_replay_drop', p_overrides);
begin
    perform two_tower.require_model(p_version);
    select * into v_coverage from two_tower.gate_coverage(p_version);
    -- Vectors that were given come without metrics and towers, and of whom it is their maker's to say: the index alone is judged.
    if not v_given then
        v_reasons := two_tower.gate_metrics(p_version, p_measured, p_overrides);
        if v_coverage.videos + v_coverage.users > 0
            or (select backfilled_at is null from two_tower.model_versions where version = p_version)
        then
            v_reasons := v_reasons || format('its backfill is not complete: it lacks the vectors of %s videos and %s users', v_coverage.videos, v_coverage.users);
        end if;
        v_distance := two_tower.gate_parity(p_version, v_sample);
        if not v_distance <= v_max_distance then
            v_reasons := v_reasons || format('what is stored is %s (cosine distance) from what it computes, and may be %s', v_distance, v_max_distance);
        end if;
    end if;
    v_recall := two_tower.gate_recall(p_version, v_sample);
    if v_recall < v_min_recall then
        v_reasons := v_reasons || format('its lists hold %s of the nearest videos, and must find %s', round(v_recall::numeric, 4), v_min_recall);
    end if;
    -- The first version has nothing to be compared with, and of vectors that were given there is no ranking for other histories.
    if v_max_drop < 1 and exists (
        select from two_tower.model_versions m
        where m.version = nullif(two_tower.active_version(), p_version) and m.user_engine <> 'given' and not v_given
    ) then
        v_reasons := array_remove(v_reasons || two_tower.gate_replay(nullif(p_measured -> 'replay', 'null'), v_max_drop), null);
    end if;
    return jsonb_build_object(
        'reasons', to_jsonb(v_reasons), 'missing_videos', v_coverage.videos, 'missing_users', v_coverage.users,
        'distance', v_distance, 'index_recall', v_recall, 'incumbent', two_tower.active_version(), 'measured', p_measured, 'overrides', p_overrides
    );
end
$func$;

comment on function two_tower.gate_model(text, jsonb, jsonb) is
'What the gate of two_tower.activate_model() finds: coverage, parity, recall of the index, metrics, and every reason to say no. '
'p_measured, p_overrides: as for two_tower.gate_metrics()';
