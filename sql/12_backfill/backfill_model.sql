drop procedure if exists two_tower.backfill_model(text);
-- A procedure without a SET clause, since it commits: as two_tower.refresh(). Several may run side by side.
create or replace procedure two_tower.backfill_model(version text, force boolean default false)
language plpgsql security invoker
as $proc$
declare
    v_run pg_catalog.record;
begin
    commit;
    set transaction isolation level read committed, read write;
    select b.* into v_run from two_tower.begin_backfill(version, force) b;
    commit and chain;
    if v_run.failure is not null then
        raise exception '%', v_run.failure using errcode = v_run.failure_code;
    end if;
    while not v_run.finished loop
        select s.* into v_run from two_tower.backfill_step(v_run.state) s;
        commit and chain;
    end loop;
end
$proc$;

comment on procedure two_tower.backfill_model(text, boolean) is
'Stages a candidate and embeds all videos, and all users with a like, by the batch; call again to resume, or several times at once';
