drop function if exists two_tower.activate_model(text, boolean);
-- SECURITY DEFINER: service_role operates the models without owning the tables.
--
-- SQLSTATEs: P0002 no such version, 55000 it is in no state to serve, 55006 another activation or an experiment is under way, TT003 the gate said no.
create or replace function two_tower.activate_model(
    p_version text, p_force boolean default false, p_measured jsonb default null, p_overrides jsonb default null
) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_previous text;
    v_state text;
    v_attached boolean;
    v_report jsonb := '{"reasons": [], "forced": false}';
begin
    perform two_tower.require_model(p_version);
    -- One activation at a time; readers do not take this lock.
    if not pg_try_advisory_xact_lock(hashtextextended('two_tower.activate', 0)) then
        raise exception 'another activation is under way' using errcode = '55006', hint = 'Try again when it is over.';
    end if;
    v_previous := two_tower.active_version();
    if v_previous is not distinct from p_version then
        return jsonb_build_object('model_version', p_version, 'previous', v_previous, 'changed', false, 'forced', false);
    end if;
    perform two_tower.require_no_experiment();
    select m.state, m.attached_at is not null into v_state, v_attached from two_tower.model_versions m where m.version = p_version;
    if v_state in ('rejected', 'retired') then
        raise exception 'model % is %, and cannot be activated', p_version, v_state using errcode = '55000';
    end if;
    if v_state = 'candidate' or not v_attached then
        raise exception 'model % is not backfilled', p_version
            using errcode = '55000', hint = format('Run: call two_tower.backfill_model(%L)', p_version);
    end if;
    -- A standby version has passed its gate, and every refresh has written it since; a rollback must not wait for anything.
    if v_state = 'staged' then
        v_report := two_tower.ask_gate(p_version, p_force, p_measured, p_overrides);
    end if;
    -- Readers see it as soon as the transaction ends, however long a busy disk delays commits. Any later commit that does wait
    -- makes it durable; a crash before that undoes all of it.
    perform set_config('synchronous_commit', 'off', true);
    -- The flip: two rows, which nobody else locks.
    update two_tower.model_versions set state = 'standby' where state = 'active';
    perform set_config('two_tower.report', v_report::text, true);
    update two_tower.model_versions set state = 'active', activated_at = clock_timestamp(), forced = forced or (v_report ->> 'forced')::boolean
    where version = p_version;
    perform set_config('two_tower.report', '', true);
    return jsonb_build_object('model_version', p_version, 'previous', v_previous, 'changed', true, 'forced', v_report -> 'forced');
end
$func$;

comment on function two_tower.activate_model(text, boolean, jsonb, jsonb) is
'Activates a backfilled version, in one transaction. TT003 says why its gate refuses; p_force overrules that, and is '
'recorded. Readers see it at once; durable with the next commit that waits for the disk, or three times wal_writer_delay later. '
'p_measured, p_overrides: as for two_tower.gate_metrics()';
