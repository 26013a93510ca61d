-- A procedure without a SET clause, since it commits after every batch; hence the qualified names throughout.
create or replace procedure two_tower.refresh(max_batches int default null, max_duration interval default '50 seconds')
language plpgsql security invoker
as $proc$
declare
    v_started timestamptz := clock_timestamp();
    -- A start of its own for each worker spreads several over the log; the second lap takes what lies before the start.
    v_after uuid := pg_catalog.gen_random_uuid();
    v_laps int := 0;
    v_run bigint;
    v_done jsonb := '{"users": 0, "videos": 0, "vectors": 0, "failed": 0}';
    v_batches int := 0;
    v_batch record;
    v_error text;
    v_sqlstate text;
begin
    -- Whatever the database has for a default: work is handed over by what committed since the last statement, and it is written.
    commit;
    set transaction isolation level read committed, read write;
    perform two_tower.requeue_failures();
    -- Likes of the day count in popularity whether or not there is anything else to do.
    if not exists (
        select from two_tower.job_runs r where r.job = 'update_popularity' and r.started_at > pg_catalog.now() - interval '1 day'
    ) then
        perform two_tower.update_popularity();
    end if;
    commit and chain;
    perform two_tower.collect_user_changes();
    if not exists (select from two_tower.user_changes) and not exists (select from two_tower.video_changes) then
        return;
    end if;
    insert into two_tower.job_runs (job) values ('refresh') returning id into v_run;
    commit and chain;
    loop
        exit when v_batches >= max_batches or pg_catalog.clock_timestamp() - v_started > max_duration;
        -- A commit that a crash takes back leaves its changes in the log, so it need not wait for the disk, nor a like behind it.
        perform pg_catalog.set_config('synchronous_commit', 'off', true);
        begin
            select b.result, b.last_id into v_batch from two_tower.refresh_batch(v_after) b;
        exception when others then
            v_error := sqlerrm;
            v_sqlstate := sqlstate;
        end;
        if v_error is not null then
            -- The log keeps what the batch would have done; the job log keeps why it was not done.
            update two_tower.job_runs set error = v_error, finished_at = pg_catalog.clock_timestamp() where id = v_run;
            commit and chain;
            raise exception '%', v_error using errcode = v_sqlstate;
        end if;
        v_done := (
            select pg_catalog.jsonb_object_agg(d.key, d.value::int + (v_batch.result ->> d.key)::int)
            from pg_catalog.jsonb_each_text(v_done) d
        );
        v_batches := v_batches + 1;
        if (v_batch.result ->> 'videos')::int = 0 then
            v_after := v_batch.last_id;
            if v_after is null then
                v_laps := v_laps + 1;
            end if;
        end if;
        update two_tower.job_runs set result = v_done, finished_at = pg_catalog.clock_timestamp() where id = v_run;
        commit and chain;
        exit when v_laps > 1;
    end loop;
end
$proc$;

comment on procedure two_tower.refresh(int, interval) is
'Drains the change log, committing batch by batch, until it is empty or a limit is reached; several may run side by side';
