-- A procedure without a SET clause, since it commits after every batch; so it qualifies all names, uses no operators, and leaves
-- decisions to functions. Each transaction is READ COMMITTED and may write, whatever the database has for a default: a batch must see
-- what was committed while it waited. This is set before anything else, as even a condition takes a snapshot, and passed on by the chain.
-- The first commit refuses to be called inside a transaction block.
create or replace procedure two_tower.refresh(max_batches int default null, max_duration interval default '50 seconds')
language plpgsql security invoker
as $proc$
declare
    v_run pg_catalog.record;
begin
    commit;
    set transaction isolation level read committed, read write;
    select b.* into v_run from two_tower.begin_refresh(max_batches, max_duration) b;
    commit and chain;
    while not v_run.finished loop
        select s.* into v_run from two_tower.refresh_step(v_run.state) s;
        commit and chain;
    end loop;
    if v_run.failure is not null then
        raise exception '%', v_run.failure using errcode = v_run.failure_code;
    end if;
end
$proc$;

comment on procedure two_tower.refresh(int, interval) is
'Drains the change log, committing batch by batch, until it is empty or a limit is reached; several may run side by side';
