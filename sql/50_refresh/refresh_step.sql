drop function if exists two_tower.refresh_step(bigint, timestamptz, uuid, int, int, int, int);
-- What the procedure two_tower.refresh() and the command line do between two commits; callers pass the state on unchanged. An error is
-- returned and not raised, since raising it would undo the entry in the job log.
--
-- SECURITY DEFINER: service_role refreshes without being able to write the log, the job log or the vectors.
create or replace function two_tower.refresh_step(
    inout state jsonb, out finished boolean, out result jsonb, out jobs jsonb, out failure text, out failure_code text
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    c_batch constant int := 1000;
    c_patience constant text := '5s';
    c_tries constant int := 5;
    v_left int;
    v_batch record;
    v_job text;
    v_tried record;
begin
    finished := false;
    result := state -> 'result';
    jobs := state -> 'ran';
    failure := state ->> 'failure';
    failure_code := state ->> 'failure_code';
    if state ->> 'phase' = 'drain' then
        v_left := least(c_batch, (state ->> 'max_changes')::int - (result ->> 'users')::int - (result ->> 'videos')::int);
        if v_left < 1 or (state ->> 'batches')::int >= (state ->> 'max_batches')::int or clock_timestamp() > (state ->> 'until')::timestamptz then
            state := state || '{"phase": "jobs"}';
        end if;
    end if;
    if state ->> 'phase' = 'drain' then
        -- A crash that undoes a commit leaves its changes in the log, so it need not wait for the disk, nor make likes wait behind it.
        perform set_config('synchronous_commit', 'off', true);
        -- What it works on is locked against others meanwhile, so it does not wait long for whoever alters a table.
        if current_setting('lock_timeout')::interval not between interval '1 millisecond' and c_patience::interval then
            perform set_config('lock_timeout', c_patience, true);
        end if;
        begin
            select b.result, b.last_id into v_batch from two_tower.refresh_batch((state ->> 'after')::uuid, v_left) b;
        exception when query_canceled or others then
            failure := sqlerrm;
            failure_code := sqlstate;
        end;
        if failure_code ^@ '40' and (state ->> 'tries')::int < c_tries then
            -- A conflict between two transactions: the step is repeated.
            state := state || jsonb_build_object('tries', (state ->> 'tries')::int + 1);
            failure := null;
            failure_code := null;
            return;
        end if;
        if failure is not null then
            -- The log keeps what the batch would have done; the job log keeps why it was not done.
            update two_tower.job_runs r set error = failure, finished_at = clock_timestamp() where r.id = (state ->> 'run_id')::bigint;
            state := state || jsonb_build_object('phase', 'jobs', 'failure', failure, 'failure_code', failure_code);
            -- Who cancels a refresh wants nothing done after it either.
            finished := failure_code = '57014';
            return;
        end if;
        result := (select jsonb_object_agg(b.key, b.value::int + (result ->> b.key)::int) from jsonb_each_text(v_batch.result) b);
        update two_tower.job_runs r
        set finished_at = clock_timestamp(), result = coalesce(r.result, '{}') || refresh_step.result
        where r.id = (state ->> 'run_id')::bigint;
        state := state || jsonb_build_object('result', result, 'batches', (state ->> 'batches')::int + 1, 'tries', 0);
        if (v_batch.result ->> 'videos')::int = 0 then
            state := state || jsonb_build_object('after', v_batch.last_id);
            if v_batch.last_id is null then
                state := state || jsonb_build_object(
                    'laps', (state ->> 'laps')::int + 1, 'phase', case state ->> 'laps' when '0' then 'drain' else 'jobs' end
                );
            end if;
        end if;
        return;
    end if;
    -- Last, and each that runs in a transaction of its own: what comes of it, changes have been refreshed.
    for v_job in select j.name from jsonb_array_elements_text(state -> 'jobs') with ordinality as j (name, place) order by j.place loop
        state := state || jsonb_build_object('jobs', (state -> 'jobs') - 0);
        select t.ran, t.result, t.error into v_tried from two_tower.try_job(v_job, true) t;
        if v_tried.ran then
            jobs := jobs || jsonb_build_object(v_job, coalesce(v_tried.result, jsonb_build_object('error', v_tried.error)));
            state := state || jsonb_build_object('ran', jobs);
            exit;
        end if;
    end loop;
    finished := state -> 'jobs' = '[]';
end
$func$;

comment on function two_tower.refresh_step(jsonb) is
'One batch of a refresh, or one job after it, from and to the state that begin_refresh() gave. result is what the run has done so far, '
'jobs what the jobs that ran have; failure says what went wrong, which is in the job log then';
