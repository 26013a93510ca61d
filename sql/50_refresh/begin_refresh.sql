-- SECURITY DEFINER: service_role refreshes without being able to write the log, the job log or the vectors.
create or replace function two_tower.begin_refresh(
    p_max_duration interval default null,
    out run_id bigint, out until timestamptz, out after uuid, out laps int, out batches int, out finished boolean, out result jsonb,
    out failure text, out failure_code text
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    until := clock_timestamp() + p_max_duration;
    -- A start of its own for each worker spreads several over the log; the second lap takes what lies before the start.
    after := gen_random_uuid();
    laps := 0;
    batches := 0;
    finished := true;
    result := '{"users": 0, "videos": 0, "vectors": 0, "failed": 0}';
    begin
        perform two_tower.requeue_failures();
        perform two_tower.collect_user_changes();
        if exists (select from two_tower.user_changes) or exists (select from two_tower.video_changes) then
            insert into two_tower.job_runs (job) values ('refresh') returning id into run_id;
            finished := false;
        end if;
    exception when query_canceled or others then
        failure := sqlerrm;
        failure_code := sqlstate;
        insert into two_tower.job_runs (job, error, finished_at) values ('refresh', sqlerrm, clock_timestamp());
    end;
end
$func$;

comment on function two_tower.begin_refresh(interval) is
'What a refresh begins with: collects changes and, where there are any, opens a run in the job log. refresh_step() goes on from there; '
'finished where nothing is to do; failure says what went wrong, which is in the job log then';
