-- SECURITY DEFINER: service_role marks and refreshes without owning the tables.
create or replace function two_tower.sync_user_embeddings(recent interval default '1 hour', min_likes int default 1) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_ids uuid[] := array(
        select d.user_id
        from (select distinct r.user_id from public.user_video_decisions r where two_tower.time_of(r.created_at) >= now() - recent) d
        where (
            select count(*) from public.user_video_decisions l where l.user_id = d.user_id and two_tower.decision_label(l.decision_type) = 1
        ) >= min_likes
    );
    v_done jsonb;
begin
    insert into two_tower.user_changes (user_id) select unnest(v_ids);
    v_done := jsonb_build_object('marked', cardinality(v_ids)) || two_tower.refresh_now();
    -- As embed_user().
    if current_setting('transaction_isolation') <> 'read committed' then
        insert into two_tower.user_changes (user_id) select unnest(v_ids);
    end if;
    insert into two_tower.job_runs (job, result, finished_at) values ('sync_user_embeddings', v_done, clock_timestamp());
    return v_done;
end
$func$;

comment on function two_tower.sync_user_embeddings(interval, int) is
'Marks users with a decision in the window and at least min_likes likes, then refreshes; counts';
