-- Deny by default: every table has row level security, and clients see what a policy below lets them see. The user's id is
-- wrapped in a sub-select so that it is read once per statement and not once per row.
--
-- Tables that no policy below names are meant to have none (Supabase's lint rls_enabled_no_policy asks about such): models' files and
-- vocabularies, reviews, partitions, what migrations remember. They are the owner's and service_role's, which bypasses policies.
do $enable$
declare
    v_table record;
begin
    for v_table in
        select n.nspname, c.relname
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p') and not c.relrowsecurity
            and (
                n.nspname = 'two_tower'
                or n.nspname = 'public' and c.relname in (
                    'videos', 'tags', 'performers', 'video_tags', 'video_performers', 'profiles', 'user_video_decisions', 'user_features',
                    -- yoyo's own tables, which plain "yoyo apply" puts where PostgREST would show them
                    '_yoyo_migration', '_yoyo_log', '_yoyo_version', 'yoyo_lock'
                )
            )
    loop
        execute format('alter table %I.%I enable row level security', v_table.nspname, v_table.relname);
        if v_table.nspname = 'public' then
            insert into two_tower.created_objects values ('row level security', 'public.' || v_table.relname) on conflict do nothing;
        end if;
    end loop;
end
$enable$;

do $policies$
declare
    v_table text;
begin
    foreach v_table in array array['videos', 'tags', 'performers', 'video_tags', 'video_performers'] loop
        execute format('drop policy if exists two_tower_catalogue on public.%I', v_table);
        execute format('create policy two_tower_catalogue on public.%I for select to anon, authenticated using (true)', v_table);
    end loop;
end
$policies$;

drop policy if exists two_tower_own on public.profiles;
create policy two_tower_own on public.profiles for select to authenticated
using (user_id = (select auth.uid()));

drop policy if exists two_tower_own on public.user_video_decisions;
create policy two_tower_own on public.user_video_decisions for all to authenticated
using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));

drop policy if exists two_tower_own on public.user_features;
create policy two_tower_own on public.user_features for select to authenticated
using (user_id = (select auth.uid()));

drop policy if exists two_tower_own on two_tower.user_embeddings;
create policy two_tower_own on two_tower.user_embeddings for select to authenticated
using (user_id = (select auth.uid()));

drop policy if exists two_tower_catalogue on two_tower.video_embeddings;
create policy two_tower_catalogue on two_tower.video_embeddings for select to authenticated using (true);

drop policy if exists two_tower_active on two_tower.model_versions;
create policy two_tower_active on two_tower.model_versions for select to authenticated using (state = 'active');

-- Whoever looks at the page of two-tower ui sees everybody's rows, of what 90_privileges.sql lets the role read.
do $viewer$
declare
    v_table text;
begin
    foreach v_table in array array[
        'public.videos', 'public.tags', 'public.performers', 'public.video_tags', 'public.video_performers', 'public.profiles',
        'public.user_video_decisions', 'public.user_features', 'two_tower.settings', 'two_tower.model_versions',
        'two_tower.model_documents', 'two_tower.model_events', 'two_tower.user_embeddings', 'two_tower.video_embeddings',
        'two_tower.video_popularity', 'two_tower.user_change_log', 'two_tower.user_changes', 'two_tower.video_changes',
        'two_tower.change_failures', 'two_tower.job_runs'
    ] loop
        execute format('drop policy if exists two_tower_viewer on %s', v_table);
        execute format('create policy two_tower_viewer on %s for select to two_tower_viewer using (true)', v_table);
    end loop;
end
$viewer$;
