-- A procedure without a SET clause, since it commits; hence the qualified names throughout.
create or replace procedure two_tower.backfill_model(version text)
language plpgsql security invoker
as $proc$
declare
    v_last uuid;
begin
    perform two_tower.require_model(version);
    perform two_tower.stage_model(version);
    commit;
    -- Only what is missing, so that a second call resumes a broken one. Videos first: users are compared with them.
    loop
        v_last := two_tower.backfill_batch(version, 'video', v_last);
        commit;
        exit when v_last is null;
    end loop;
    loop
        v_last := two_tower.backfill_batch(version, 'user', v_last);
        commit;
        exit when v_last is null;
    end loop;
    -- One index build over a full table is many times faster than inserting into an index.
    perform two_tower.finish_backfill(version);
    commit;
end
$proc$;

comment on procedure two_tower.backfill_model(text) is
'Stages a candidate and embeds every video and every user with a like under it, batch by batch; call again to resume';
