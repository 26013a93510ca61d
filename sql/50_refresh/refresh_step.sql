-- What the procedure two_tower.refresh() and the command line do between two commits. An error is an answer and not raised: it would undo
-- what the job log is to keep.
--
-- SECURITY DEFINER: service_role refreshes without being able to write the log, the job log or the vectors.
create or replace function two_tower.refresh_step(
    p_run_id bigint, p_until timestamptz, inout after uuid, inout laps int, inout batches int,
    p_max_batches int default null, p_limit int default 1000,
    out finished boolean, out result jsonb, out failure text, out failure_code text
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_batch record;
begin
    if batches >= p_max_batches or clock_timestamp() > p_until then
        finished := true;
        return;
    end if;
    -- A commit that a crash takes back leaves its changes in the log, so it need not wait for the disk, nor a like behind it.
    perform set_config('synchronous_commit', 'off', true);
    begin
        select b.result, b.last_id into v_batch from two_tower.refresh_batch(after, p_limit) b;
    exception when query_canceled or others then
        failure := sqlerrm;
        failure_code := sqlstate;
    end;
    if failure is not null then
        -- The log keeps what the batch would have done; the job log keeps why it was not done.
        update two_tower.job_runs r set error = failure, finished_at = clock_timestamp() where r.id = p_run_id;
        finished := true;
        return;
    end if;
    update two_tower.job_runs r
    set finished_at = clock_timestamp(),
        result = (
            select jsonb_object_agg(b.key, b.value::int + coalesce((r.result ->> b.key)::int, 0)) from jsonb_each_text(v_batch.result) b
        )
    where r.id = p_run_id
    returning r.result into result;
    batches := batches + 1;
    if (v_batch.result ->> 'videos')::int = 0 then
        after := v_batch.last_id;
        if after is null then
            laps := laps + 1;
        end if;
    end if;
    finished := laps > 1;
end
$func$;

comment on function two_tower.refresh_step(bigint, timestamptz, uuid, int, int, int, int) is
'One batch of a refresh, from and to the state that begin_refresh() gave; finished where the log is empty or a limit is reached. result is '
'what the run has done so far; failure says what went wrong, which is in the job log then';
