-- SECURITY DEFINER: service_role marks and refreshes without owning the tables.
create or replace function two_tower.sync_video_embeddings() returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_ids uuid[];
    v_done jsonb;
begin
    perform two_tower.hold_versions('batch');
    v_ids := array(
        select v.id from public.videos v
        where exists (
            select from unnest(two_tower.live_versions()) as l (version)
            where not exists (select from two_tower.video_embeddings e where e.model_version = l.version and e.video_id = v.id)
                or exists (select from two_tower.model_versions m where m.version = l.version and m.user_engine = 'sql')
                and not exists (select from two_tower.video_tastes t where t.model_version = l.version and t.video_id = v.id)
        )
    );
    insert into two_tower.video_changes (video_id) select unnest(v_ids);
    v_done := jsonb_build_object('marked', cardinality(v_ids)) || two_tower.refresh_now();
    -- As embed_user().
    if current_setting('transaction_isolation') <> 'read committed' then
        insert into two_tower.video_changes (video_id) select unnest(v_ids);
    end if;
    insert into two_tower.job_runs (job, result, finished_at) values ('sync_video_embeddings', v_done, clock_timestamp());
    return v_done;
end
$func$;

comment on function two_tower.sync_video_embeddings() is
'Marks videos that lack a vector of any live version, then refreshes; counts';
