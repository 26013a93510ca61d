-- An error in the gate itself is a reason to refuse, and can be overruled like any other.
create or replace function two_tower.ask_gate(
    p_version text, p_force boolean, p_measured jsonb default null, p_overrides jsonb default null
) returns jsonb
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_report jsonb;
begin
    begin
        perform two_tower.tune_search(p_version);
        v_report := two_tower.gate_model(p_version, p_measured, p_overrides);
    exception when others then
        if not p_force then
            raise;
        end if;
        v_report := jsonb_build_object('reasons', jsonb_build_array('the gate failed: ' || sqlerrm));
    end;
    if v_report -> 'reasons' <> '[]' and not p_force then
        raise exception 'model % does not pass its gate: %', p_version,
            (select string_agg(r.reason, '; ') from jsonb_array_elements_text(v_report -> 'reasons') as r (reason))
            using errcode = 'TT003', hint = 'two_tower.gate_model(version) shows what was measured; p_force goes ahead, and is recorded.';
    end if;
    return v_report || jsonb_build_object('forced', v_report -> 'reasons' <> '[]');
end
$func$;

comment on function two_tower.ask_gate(text, boolean, jsonb, jsonb) is
'Measures how wide the index of a backfilled version must be searched, and runs its gate; TT003 if that refuses and p_force does not '
'overrule it, which is "forced" in the answer. p_measured, p_overrides: as for two_tower.gate_metrics()';
