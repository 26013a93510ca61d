-- A procedure without a SET clause, since it commits; hence the qualified names throughout.
create or replace procedure two_tower.rebuild()
language plpgsql security invoker
as $proc$
declare
    v_last uuid;
begin
    -- Whatever the database has for a default: work is handed over by what committed since the last statement, and it is written.
    commit;
    set transaction isolation level read committed, read write;
    loop
        v_last := two_tower.rebuild_batch('video', v_last);
        commit and chain;
        exit when v_last is null;
    end loop;
    loop
        v_last := two_tower.rebuild_batch('user', v_last);
        commit and chain;
        exit when v_last is null;
    end loop;
end
$proc$;

comment on procedure two_tower.rebuild() is
'Recomputes every feature row and every vector of the live versions, whatever the log says';
