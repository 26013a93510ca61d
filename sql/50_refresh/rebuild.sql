-- As refresh().
create or replace procedure two_tower.rebuild()
language plpgsql security invoker
as $proc$
declare
    v_kind pg_catalog.text;
    v_last pg_catalog.uuid;
begin
    commit;
    set transaction isolation level read committed, read write;
    foreach v_kind in array array['video', 'user'] loop
        v_last := null;
        loop
            v_last := two_tower.rebuild_batch(v_kind, v_last);
            commit and chain;
            exit when v_last is null;
        end loop;
    end loop;
end
$proc$;

comment on procedure two_tower.rebuild() is
'Recomputes every feature row and every vector of the live versions, whatever the log says';
