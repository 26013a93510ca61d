-- Drops the logic and leaves the state, so that yoyo can roll the state back and an older checkout can apply its own logic.
do $teardown$
declare
    v_object record;
    v_names text;
begin
    if to_regprocedure('two_tower.unschedule_jobs()') is not null then
        perform two_tower.unschedule_jobs();
    end if;
    select string_agg(c.oid::regclass::text, ', ') into v_names
    from pg_catalog.pg_class c
    where c.relkind = 'v' and (
        c.relnamespace = 'two_tower'::regnamespace
        or c.oid in (to_regclass('public.user_embeddings'), to_regclass('public.video_embeddings'))
    );
    if v_names is not null then
        execute 'drop view ' || v_names;
    end if;
    for v_object in
        select p.polname, p.polrelid::regclass as name from pg_catalog.pg_policy p where p.polname like 'two_tower\_%'
    loop
        execute format('drop policy %I on %s', v_object.polname, v_object.name);
    end loop;
    for v_object in select name from two_tower.created_objects where kind = 'row level security' loop
        execute format('alter table %s disable row level security', v_object.name);
    end loop;
    delete from two_tower.created_objects where kind = 'row level security';
    select string_agg(p.oid::regprocedure::text, ', ') into v_names
    from pg_catalog.pg_proc p
    where p.pronamespace = 'two_tower'::regnamespace
        or p.pronamespace = 'public'::regnamespace and p.proname in (
            'embed_user', 'update_user_features', 'get_user_embedding_features', 'get_user_embedding_feature_batch',
            'get_item_embedding_features', 'get_item_embedding_feature_batch', 'recommend_videos', 'similar_videos'
        );
    if v_names is not null then
        -- Cascades to the triggers.
        execute 'drop routine ' || v_names || ' cascade';
    end if;
    revoke all on all tables in schema two_tower from anon, authenticated, service_role;
    revoke all on schema two_tower from anon, authenticated, service_role;
end
$teardown$;
