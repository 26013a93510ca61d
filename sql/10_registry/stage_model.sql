drop function if exists two_tower.stage_model(text);
drop function if exists two_tower.stage_model(text, boolean);
-- SECURITY DEFINER: service_role operates the models without owning the tables.
--
-- The verdict is returned and not raised: an exception would undo the rejection that it reports.
create or replace function two_tower.stage_model(
    p_version text, p_force boolean default false, p_measured jsonb default null, p_overrides jsonb default null
) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_state text;
    v_reasons text[];
    v_report jsonb;
begin
    perform two_tower.require_model(p_version);
    select state into strict v_state from two_tower.model_versions where version = p_version for update;
    if v_state in ('rejected', 'retired') then
        raise exception 'model % is %, and can be neither backfilled nor activated', p_version, v_state
            using errcode = '55000', hint = 'Its files can be registered under another version: two-tower model export, model register.';
    end if;
    if v_state <> 'candidate' then
        return jsonb_build_object('state', v_state, 'reasons', '[]'::jsonb);
    end if;
    v_reasons := two_tower.gate_metrics(p_version, p_measured, p_overrides);
    v_report := jsonb_build_object(
        'reasons', to_jsonb(v_reasons), 'forced', v_reasons <> '{}' and p_force, 'measured', p_measured, 'overrides', p_overrides
    );
    perform set_config('two_tower.report', v_report::text, true);
    if v_reasons <> '{}' and not p_force then
        v_state := 'rejected';
    else
        v_state := 'staged';
        perform two_tower.create_partitions(p_version);
    end if;
    update two_tower.model_versions set state = v_state, forced = v_reasons <> '{}' and p_force where version = p_version;
    perform set_config('two_tower.report', '', true);
    return v_report || jsonb_build_object('state', v_state);
end
$func$;

comment on function two_tower.stage_model(text, boolean, jsonb, jsonb) is
'Stages a candidate whose metrics pass the gate, and rejects it otherwise; the new state and the reasons. '
'p_measured, p_overrides: as two_tower.gate_metrics() takes them';
