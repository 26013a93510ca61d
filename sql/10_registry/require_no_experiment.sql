create or replace function two_tower.require_no_experiment(p_version text default null) returns void
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_running record;
begin
    select e.control, e.challenger into v_running
    from two_tower.experiments e
    where e.stopped_at is null and (p_version is null or p_version in (e.control, e.challenger));
    if found then
        raise exception 'an experiment compares % and % on users', v_running.control, v_running.challenger
            using errcode = '55006', hint = format('End it first: two-tower ab stop, or two-tower ab stop --winner %s', v_running.challenger);
    end if;
end
$func$;

comment on function two_tower.require_no_experiment(text) is
'Raises 55006 while an experiment runs, or one with this version';
