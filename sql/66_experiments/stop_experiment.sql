-- SECURITY DEFINER: service_role operates the models without owning the tables.
create or replace function two_tower.stop_experiment(p_winner text default null) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_experiment two_tower.experiments;
    v_flip jsonb := '{"changed": false}';
begin
    if not pg_try_advisory_xact_lock(hashtextextended('two_tower.activate', 0)) then
        raise exception 'an activation is under way' using errcode = '55006', hint = 'Try again when it is over.';
    end if;
    select * into v_experiment from two_tower.experiments e where e.stopped_at is null for update;
    if not found then
        raise exception 'no experiment is running' using errcode = '55000', hint = 'Start one: two-tower ab start';
    end if;
    if p_winner not in (v_experiment.control, v_experiment.challenger) then
        raise exception 'model % is not in the experiment, which compares % and %', p_winner, v_experiment.control, v_experiment.challenger
            using errcode = '22023';
    end if;
    update two_tower.experiments set stopped_at = clock_timestamp(), winner = p_winner where id = v_experiment.id;
    if p_winner = v_experiment.challenger then
        v_flip := two_tower.activate_model(p_winner);
    end if;
    return jsonb_build_object(
        'experiment', v_experiment.id, 'control', v_experiment.control, 'challenger', v_experiment.challenger, 'winner', p_winner,
        'model_version', two_tower.active_version(), 'changed', v_flip -> 'changed'
    );
end
$func$;

comment on function two_tower.stop_experiment(text) is
'Ends the experiment: the winner serves everybody, at once; without one the active version goes on. 55000 where none is running, 22023 '
'for a version that is not in it';
