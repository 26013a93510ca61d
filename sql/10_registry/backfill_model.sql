drop procedure if exists two_tower.backfill_model(text);
-- A procedure without a SET clause, since it commits; hence the qualified names throughout. Several may run side by side.
create or replace procedure two_tower.backfill_model(version text, force boolean default false)
language plpgsql security invoker
as $proc$
declare
    v_verdict jsonb;
    v_kind text;
    v_after uuid;
    v_whole boolean;
    v_left int;
    v_batch record;
begin
    -- As two_tower.refresh().
    commit;
    set transaction isolation level read committed, read write;
    v_verdict := two_tower.stage_model(version, force);
    commit and chain;
    if v_verdict ->> 'state' = 'rejected' then
        raise exception 'model % is rejected: %', version,
            (select pg_catalog.string_agg(r.reason, '; ') from pg_catalog.jsonb_array_elements_text(v_verdict -> 'reasons') as r (reason))
            using errcode = 'TT003';
    end if;
    -- Only what is missing, so that a second call resumes a broken one. Videos first: users are compared with them.
    foreach v_kind in array array['video', 'user'] loop
        -- A start of its own for each worker spreads several over the rows; then round and round, until a whole lap finds nothing.
        v_after := pg_catalog.gen_random_uuid();
        v_whole := false;
        v_left := 0;
        loop
            select b.last_id, b.seen, b.done into v_batch from two_tower.backfill_batch(version, v_kind, v_after) b;
            commit and chain;
            v_left := v_left + v_batch.seen;
            v_after := v_batch.last_id;
            if v_after is null then
                exit when v_whole and v_left = 0;
                v_whole := true;
                v_left := 0;
            elsif v_batch.done = 0 then
                perform pg_catalog.pg_sleep(0.05);  -- another worker has them
            end if;
        end loop;
        if v_kind = 'video' then
            perform two_tower.attach_partitions(version);
            commit and chain;
            v_after := null;
            while (select m.checked_at is null from two_tower.model_versions m where m.version = backfill_model.version) loop
                select b.last_id into v_after from two_tower.backfill_batch(version, 'change', v_after) b;
                commit and chain;
            end loop;
        end if;
    end loop;
    perform two_tower.finish_backfill(version);
    commit and chain;
end
$proc$;

comment on procedure two_tower.backfill_model(text, boolean) is
'Stages a candidate and embeds all videos, and all users with a like, by the batch; call again to resume, or several times at once';
