-- SECURITY DEFINER: nobody but the owner writes the job log.
create or replace function two_tower.log_verified(p_result jsonb) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_result jsonb := p_result || jsonb_build_object('found', (select sum(d.value::int) from jsonb_each_text(p_result -> 'differing') as d));
begin
    -- A standby, too, can be asked whether it is right.
    if not current_setting('transaction_read_only')::boolean then
        insert into two_tower.job_runs (job, result, finished_at) values ('verify', v_result, clock_timestamp());
    end if;
    return v_result;
end
$func$;

comment on function two_tower.log_verified(jsonb) is
'Notes in the job log what a comparison found: users and videos compared, differing by kind, whole or a sample, how many were marked';
