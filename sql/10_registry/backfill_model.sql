drop procedure if exists two_tower.backfill_model(text);
-- A procedure without a SET clause, since it commits: as two_tower.refresh(). Several may run side by side.
create or replace procedure two_tower.backfill_model(version text, force boolean default false)
language plpgsql security invoker
as $proc$
declare
    v_verdict pg_catalog.jsonb;
    v_state pg_catalog.record;
begin
    commit;
    set transaction isolation level read committed, read write;
    v_verdict := two_tower.stage_model(version, force);
    commit and chain;
    select b.* into v_state from two_tower.begin_backfill(version, v_verdict) b;
    while not v_state.finished loop
        select s.* into v_state from two_tower.backfill_step(version, v_state.phase, v_state.after, v_state.whole, v_state.seen) s;
        commit and chain;
    end loop;
end
$proc$;

comment on procedure two_tower.backfill_model(text, boolean) is
'Stages a candidate and embeds all videos, and all users with a like, by the batch; call again to resume, or several times at once';
