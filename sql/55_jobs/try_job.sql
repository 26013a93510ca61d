drop function if exists two_tower.try_update_popularity(boolean);
-- SECURITY DEFINER: service_role runs jobs without being able to write what they write.
create or replace function two_tower.try_job(p_job text, p_if_due boolean default false, out ran boolean, out result jsonb, out error text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    if not exists (select from two_tower.job_definitions() d where d.job = p_job and d.job <> 'refresh') then
        raise exception 'there is no job %, or it is not done in one transaction', p_job
            using errcode = '22023', hint = 'two_tower.job_definitions() names the jobs; refresh is a procedure to call.';
    end if;
    ran := false;
    if p_if_due and not pg_try_advisory_xact_lock(hashtextextended('two_tower.job ' || p_job, 0)) then
        return;  -- another worker is at it
    end if;
    begin
        -- A statement of its own, after the lock: so it sees the run of whoever held it until now.
        if p_if_due and not two_tower.job_due(p_job) then
            return;
        end if;
        ran := true;
        case p_job
            when 'sync_user_embeddings' then result := two_tower.sync_user_embeddings();
            when 'sync_video_embeddings' then result := two_tower.sync_video_embeddings();
            when 'update_popularity' then result := jsonb_build_object('videos', two_tower.update_popularity());
            when 'verify' then result := two_tower.verify_sample();
            when 'purge_logs' then result := two_tower.purge_logs();
        end case;
    exception when query_canceled or others then
        ran := true;
        error := sqlerrm;
        insert into two_tower.job_runs (job, error, finished_at) values (p_job, sqlerrm, clock_timestamp());
    end;
end
$func$;

comment on function two_tower.try_job(text, boolean) is
'Runs a job for a caller that must not fail because of it: returns its result, or the error, which the job log keeps. '
'With p_if_due only if it is due and nobody else runs it';
