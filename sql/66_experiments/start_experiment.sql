-- SECURITY DEFINER: service_role operates the models without owning the tables.
--
-- A staged challenger has to pass its gate, as for an activation, and is on standby from then on: activating it needs no gate
-- again. SQLSTATEs: P0002 no such version, 22023 no such share, 55000 a version is in no state for it, 55006 another experiment or an
-- activation is under way, TT003 the gate said no.
create or replace function two_tower.start_experiment(
    p_control text, p_challenger text, p_share double precision default 0.1, p_force boolean default false, p_measured jsonb default null,
    p_overrides jsonb default null
) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_active text;
    v_state text;
    v_attached boolean;
    v_report jsonb := '{"forced": false}';
    v_id int;
begin
    perform two_tower.require_model(p_control), two_tower.require_model(p_challenger);
    if p_share is null or not (p_share > 0 and p_share < 1) then
        raise exception 'the share of the users must be above 0 and below 1, and is %', coalesce(p_share::text, 'null')
            using errcode = '22023', hint = 'With 0.1, a tenth of the users are served by the challenger.';
    end if;
    if not pg_try_advisory_xact_lock(hashtextextended('two_tower.activate', 0)) then
        raise exception 'an activation is under way' using errcode = '55006', hint = 'Try again when it is over.';
    end if;
    perform two_tower.require_no_experiment();
    v_active := two_tower.active_version();
    if p_control is distinct from v_active then
        raise exception 'model % does not serve: the first of the two must be the active one, which is %', p_control, coalesce(v_active, 'none')
            using errcode = '55000', hint = coalesce(format('Run: two-tower ab start %s %s', v_active, p_control), 'Activate a version first.');
    end if;
    if p_challenger is null or p_challenger = v_active then
        raise exception 'an experiment takes two versions' using errcode = '22023', hint = 'List them: two-tower model list';
    end if;
    select m.state, m.attached_at is not null into v_state, v_attached
    from two_tower.model_versions m where m.version = p_challenger for no key update;
    if v_state in ('rejected', 'retired') then
        raise exception 'model % is %, and has no vectors to serve anybody with', p_challenger, v_state using errcode = '55000';
    end if;
    if v_state = 'candidate' or not v_attached then
        raise exception 'model % is not backfilled', p_challenger
            using errcode = '55000', hint = format('Run: two-tower model backfill %s', p_challenger);
    end if;
    if v_state = 'staged' then
        v_report := two_tower.ask_gate(p_challenger, p_force, p_measured, p_overrides);
        perform set_config('two_tower.report', v_report::text, true);
        update two_tower.model_versions set state = 'standby', forced = forced or (v_report ->> 'forced')::boolean where version = p_challenger;
        perform set_config('two_tower.report', '', true);
    end if;
    insert into two_tower.experiments (control, challenger, share) values (p_control, p_challenger, p_share) returning id into v_id;
    return jsonb_build_object(
        'experiment', v_id, 'control', p_control, 'challenger', p_challenger, 'share', p_share, 'forced', v_report -> 'forced'
    );
end
$func$;

comment on function two_tower.start_experiment(text, text, double precision, boolean, jsonb, jsonb) is
'Serves a share of the users, drawn by hash, by a backfilled challenger, and everybody else by the active version, until '
'stop_experiment(). TT003 says why the challenger''s gate refuses; p_force overrules that, and is recorded. p_measured, p_overrides: as '
'two_tower.gate_metrics() takes them';
