-- Who may do what with what is ours, all of it; the tables in public are opened where they are made, in migrations/. The application's
-- own are not touched, but for what the page's role may read. First everything is taken away, also what the server or Supabase
-- grants by default.
do $revoke$
declare
    v_routine regprocedure;
begin
    for v_routine in
        select p.oid from pg_catalog.pg_proc p where p.pronamespace = 'two_tower'::regnamespace
        union all
        select unnest(array[
            'public.embed_user(boolean, uuid)', 'public.update_user_features(uuid)', 'public.get_user_embedding_features(uuid)',
            'public.get_user_embedding_feature_batch(int, int, uuid)', 'public.get_item_embedding_features(uuid)',
            'public.get_item_embedding_feature_batch(int, int, uuid)', 'public.log_shown(jsonb)',
            'public.claim_session(uuid[], uuid[])', 'public.rank_candidates(uuid[], boolean)',
            'public.set_choices(boolean, boolean, text[], uuid[], uuid[], uuid)', 'public.export_user_data(uuid)'
        ]::regprocedure[])
    loop
        execute format('revoke all on routine %s from public, anon, authenticated, service_role, two_tower_viewer', v_routine);
    end loop;
end
$revoke$;

-- Lists, all of which take the same filters: who may ask for which.
do $lists$
declare
    c_filter constant text := 'uuid[], uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[], real, real, int, int, timestamptz, text[]';
    v_list record;
begin
    for v_list in
        select format('public.%s, %s%s)', l.signature, c_filter, l.more) as routine, l.who
        from (values
            ('recommend_videos(int, uuid[], real, uuid[], boolean', ', uuid', 'authenticated, service_role'),
            ('next_videos(int, uuid[], uuid[], boolean', '', 'authenticated'),
            ('similar_videos(uuid, int, real, uuid[], uuid[]', '', 'anon, authenticated, service_role'),
            ('recommend_from(uuid[], uuid[], int, uuid[], real, uuid[], boolean', '', 'anon, authenticated, service_role'),
            ('popular_videos_now(int, uuid[], uuid[]', '', 'anon, authenticated, service_role'),
            ('trending_videos(int, interval, uuid[], uuid[]', '', 'anon, authenticated, service_role')
        ) as l (signature, more, who)
    loop
        execute format('revoke all on function %s from public, anon, authenticated, service_role, two_tower_viewer', v_list.routine);
        execute format('grant execute on function %s to %s', v_list.routine, v_list.who);
    end loop;
end
$lists$;

revoke all on schema two_tower from public, anon, authenticated, service_role, two_tower_viewer;
revoke all on all tables in schema two_tower from public, anon, authenticated, service_role, two_tower_viewer;
revoke all on all sequences in schema two_tower from public, anon, authenticated, service_role, two_tower_viewer;

-- anon: what is similar to what, what many like, and what next for a session that nobody remembers. The schema is not one that PostgREST
-- shows; the routines below are what those in public call.
grant usage on schema two_tower to anon, authenticated, service_role;
grant execute on function two_tower.list_for_caller(two_tower.list_question, int),
two_tower.list_candidates(two_tower.list_question, int), two_tower.steer_list(two_tower.list_question, int),
two_tower.require_page(int, int, int), two_tower.named_id(text, text),
two_tower.list_id(uuid, text, uuid[], two_tower.video_filter),
two_tower.require_session(uuid[], uuid[]), two_tower.session_reasons(uuid[], uuid[])
to anon, authenticated, service_role;

-- authenticated: the own rows, as row level security has it.
grant select on two_tower.user_features, two_tower.active_user_embeddings, two_tower.active_video_embeddings to authenticated;
grant execute on function public.embed_user(boolean, uuid), two_tower.acting_user(uuid), two_tower.own_reasons(uuid[], uuid),
two_tower.require_primary(text)
to authenticated, service_role;
grant execute on function public.set_choices(boolean, boolean, text[], uuid[], uuid[], uuid), public.export_user_data(uuid)
to authenticated, service_role;
grant execute on function public.log_shown(jsonb), two_tower.keep_shown(two_tower.impressions[]), two_tower.shown_lately(),
public.claim_session(uuid[], uuid[]),
public.rank_candidates(uuid[], boolean), two_tower.own_scores(uuid[])
to authenticated;
grant execute on function public.update_user_features(uuid) to authenticated, service_role;
grant execute on function public.get_user_embedding_features(uuid) to authenticated, service_role;
grant execute on function public.get_item_embedding_features(uuid) to authenticated, service_role;

-- What the views and the invoker routines above read on the caller's behalf.
grant select (version, state) on two_tower.model_versions to authenticated;
grant select (model_version, user_id, embedding, updated_at) on two_tower.user_embeddings to authenticated;
grant select (model_version, video_id, embedding, updated_at, placed) on two_tower.video_embeddings to authenticated;
grant execute on function two_tower.active_version(), two_tower.own_version(), two_tower.is_service() to authenticated, service_role;
-- Of any user, which a client may not ask.
grant execute on function two_tower.served_version(uuid) to service_role;
grant execute on function two_tower.video_payloads(uuid[]) to authenticated, service_role;
grant select on two_tower.content_vectors to authenticated;
grant execute on function two_tower.video_numbers(uuid[]), two_tower.attributes_of(uuid), two_tower.contents_of(uuid),
two_tower.words_of(text), two_tower.input_segments(), two_tower.input_numbers()
to authenticated, service_role;
-- How values read, which says nothing of anybody.
grant execute on function
two_tower.text_of(text, double precision), two_tower.text_of(varchar, double precision), two_tower.text_of(char, double precision),
two_tower.text_of(anyelement, int), two_tower.text_of(anyelement),
two_tower.id_of(uuid, double precision), two_tower.id_of_word(text), two_tower.id_of(anyelement, int), two_tower.id_of(anyelement),
two_tower.price_of(numeric, double precision), two_tower.price_of(double precision, double precision),
two_tower.price_of(real, double precision), two_tower.price_of(bigint, double precision), two_tower.price_of(int, double precision),
two_tower.price_of(money, double precision), two_tower.price_of_word(text), two_tower.price_of(anyelement, int),
two_tower.price_of(anyelement),
two_tower.duration_of(numeric, double precision), two_tower.duration_of(double precision, double precision),
two_tower.duration_of(real, double precision), two_tower.duration_of(int, double precision), two_tower.duration_of(money, double precision),
two_tower.duration_of_word(text), two_tower.duration_of(anyelement, int), two_tower.duration_of(anyelement),
two_tower.time_of(timestamptz, double precision), two_tower.time_of(timestamp, double precision), two_tower.time_of(date, double precision),
two_tower.time_of_word(text), two_tower.time_of(anyelement, int), two_tower.time_of(anyelement),
two_tower.label_of_word(text), two_tower.decision_label(anyelement), two_tower.decision_weight(bigint, double precision, real),
two_tower.weight_of(real, double precision), two_tower.weight_of(double precision, double precision),
two_tower.weight_of(numeric, double precision), two_tower.weight_of_word(text), two_tower.weight_of(anyelement, int),
two_tower.weight_of(anyelement)
to authenticated, service_role, two_tower_viewer;

-- service_role: everything that an operator does, and nothing that runs unchecked.
grant select on all tables in schema two_tower to service_role;
-- Partitions are read through their parents; one made after this file ran has no grants either.
do $partitions$
declare
    v_partition regclass;
begin
    for v_partition in
        select c.oid from pg_catalog.pg_class c where c.relnamespace = 'two_tower'::regnamespace and c.relkind = 'r' and c.relispartition
    loop
        execute format('revoke all on %s from service_role', v_partition);
    end loop;
end
$partitions$;
-- On a host where nobody could give service_role bypassrls, it sees what is ours by policies, as far as it has the grants. The
-- application's own tables show it what the application's policies do.
do $service$
declare
    v_bypasses boolean := (select r.rolbypassrls from pg_catalog.pg_roles r where r.rolname = 'service_role');
    v_table record;
begin
    for v_table in
        select c.oid::regclass as name, s.has
        from pg_catalog.pg_class c
        cross join lateral (
            select coalesce(bool_or(p.polname = 'two_tower_service'), false) as has, coalesce(bool_or(p.polname = 'two_tower_viewer'), false) as ours
            from pg_catalog.pg_policy p where p.polrelid = c.oid
        ) as s
        where c.relkind in ('r', 'p') and not c.relispartition and s.has = v_bypasses and (
            c.relnamespace = 'two_tower'::regnamespace and has_table_privilege('service_role', c.oid, 'select')
            -- One of that name without a policy of ours is the application's, made since.
            or s.ours and c.oid in (select to_regclass(o.name) from two_tower.created_objects o where o.kind = 'table')
        )
    loop
        if v_table.has then
            execute format('drop policy two_tower_service on %s', v_table.name);
        else
            execute format('create policy two_tower_service on %s to service_role using (true) with check (true)', v_table.name);
        end if;
    end loop;
end
$service$;
grant insert, update, delete on two_tower.reviews, two_tower.content_vectors, two_tower.settings, two_tower.promotions,
two_tower.user_choices, two_tower.shards, two_tower.shard_popularity to service_role;
-- Before the version is registered; a trigger refuses it afterwards.
grant insert, delete on two_tower.model_weights, two_tower.neighbour_lists to service_role;
grant execute on function public.get_user_embedding_feature_batch(int, int, uuid) to service_role;
grant execute on function public.get_item_embedding_feature_batch(int, int, uuid) to service_role;
grant insert (job, result, finished_at), update (result, finished_at, error) on two_tower.job_runs to service_role;
grant execute on routine
two_tower.unit_vector(real[]), two_tower.require_model(text), two_tower.require_no_experiment(text), two_tower.live_versions(),
two_tower.user_payloads(uuid[]),
two_tower.recency_of(text), two_tower.user_inputs(uuid[], double precision), two_tower.weighted_decisions(uuid, double precision),
two_tower.given_decisions(uuid), two_tower.count_user_features(uuid[]), two_tower.count_decisions(uuid[]),
two_tower.personalised(uuid[]), two_tower.accounts(),
two_tower.keys_of(jsonb), two_tower.profile_keys(uuid), two_tower.profile_positions(uuid[], text),
two_tower.reads_profiles(text), two_tower.count_by_profile(text),
two_tower.users_by_profile(text, uuid, int, boolean),
two_tower.register_model(text, bytea, bytea, jsonb, jsonb, jsonb, jsonb, jsonb, bytea),
two_tower.stage_given(text, jsonb), two_tower.add_given(text, text, uuid[], extensions.halfvec[]), two_tower.close_given(text),
two_tower.given_versions(),
two_tower.stage_model(text, boolean, jsonb, jsonb), two_tower.reject_model(text, text[]),
two_tower.backfill_model(text, boolean), two_tower.backfill_batch(text, text, uuid, int),
two_tower.begin_backfill(text, boolean, jsonb, jsonb), two_tower.backfill_step(jsonb), two_tower.make_durable(),
two_tower.index_partitions(text), two_tower.attach_partitions(text, interval),
two_tower.finish_backfill(text), two_tower.backfilled_share(text),
two_tower.gate_model(text, jsonb, jsonb), two_tower.gate_replay(jsonb, double precision),
two_tower.gate_metrics(text, jsonb, jsonb), two_tower.gate_setting(text, jsonb),
two_tower.activate_model(text, boolean, jsonb, jsonb), two_tower.rollback_model(text), two_tower.retire_model(text, interval),
two_tower.embed_users(uuid[], text), two_tower.embed_videos(uuid[], text), two_tower.recommend_batch(uuid[], int),
two_tower.forget_user(uuid), two_tower.allowed_videos(uuid, uuid[]), two_tower.was_filtered(uuid), two_tower.lists_by_chance(int),
two_tower.refresh(int, interval), two_tower.begin_refresh(int, interval, int, boolean),
two_tower.refresh_step(jsonb), two_tower.collect_user_changes(), two_tower.refresh_batch(uuid, int),
two_tower.requeue_failures(), two_tower.update_popularity(), two_tower.own_popularity(), two_tower.draw_exploration(),
two_tower.try_job(text, boolean),
two_tower.link_reviewers(),
two_tower.unknown_decisions(), two_tower.hidden_catalogue(),
two_tower.sync_user_embeddings(interval, int), two_tower.sync_video_embeddings(),
two_tower.stale_users(interval, int, boolean, int), two_tower.mark_users(interval, int, boolean, int),
two_tower.rebuild(), two_tower.rebuild_batch(text, uuid, int),
two_tower.schedule_jobs(), two_tower.unschedule_jobs(), two_tower.purge_logs(interval),
two_tower.job_definitions(), two_tower.cron_jobs(), two_tower.cron_running(), two_tower.retry_failures(), two_tower.model_setting(text),
two_tower.setting_error(text, jsonb, text), two_tower.count_coverage(text[]), two_tower.gate_coverage(text), two_tower.sample_models(int),
two_tower.tune_search(text),
two_tower.coverage_problems(text, text, boolean, bigint, bigint), two_tower.change_triggers(), two_tower.lacking_triggers(),
two_tower.liking_users(), two_tower.verify_batch(text, uuid, int, uuid[]), two_tower.verify_sample(int),
two_tower.log_verified(jsonb), two_tower.mark_changes(text, uuid[]),
two_tower.start_experiment(text, text, double precision, boolean, jsonb, jsonb), two_tower.stop_experiment(text)
to service_role;
-- What came of what was shown.
grant execute on function
two_tower.in_share(uuid, int, double precision), two_tower.shown_outcomes(timestamptz, timestamptz, int), two_tower.shown_rates(int),
two_tower.experiment_days(int), two_tower.experiment_tests(int), two_tower.experiment_coverage(int),
two_tower.rate_variance(bigint, double precision, double precision, double precision, double precision, double precision),
two_tower.interval_radius(double precision, double precision), two_tower.rate_interval(double precision, double precision),
two_tower.expected_effect(double precision),
two_tower.compare_rates(
    double precision, double precision, bigint, bigint, double precision, double precision, bigint, bigint
)
to service_role, two_tower_viewer;

-- two_tower_viewer: what the page of two-tower ui shows, to read; no model's files, no e-mail addresses, nothing to call but what
-- only reads.
grant usage on schema two_tower to two_tower_viewer;
-- Of the application's tables, which may hold notes, names and addresses, only the columns that the page shows or counts by.
do $columns$
declare
    v_table record;
begin
    for v_table in
        select a.attrelid::regclass as name, string_agg(quote_ident(a.attname), ', ' order by a.attnum) as columns
        from (values
            ('videos', array[
                'id', 'product_url', 'title', 'maker', 'label', 'series', 'source', 'thumbnail_url', 'image_urls', 'price',
                'duration_seconds', 'product_released_at', 'distribution_started_at', 'published_at'
            ]),
            ('tags', array['id', 'name']),
            ('performers', array['id', 'name']),
            ('video_tags', array['video_id', 'tag_id']),
            ('video_performers', array['video_id', 'performer_id']),
            ('user_video_decisions', array['user_id', 'video_id', 'decision_type', 'created_at', 'weight']),
            ('profiles', array['user_id', 'id', 'created_at'])
        ) as t (name, columns)
        join pg_catalog.pg_attribute a on a.attrelid = ('public.' || t.name)::regclass and a.attname = any (t.columns) and not a.attisdropped
        group by a.attrelid
    loop
        execute format('grant select (%s) on %s to two_tower_viewer', v_table.columns, v_table.name);
    end loop;
end
$columns$;
grant select on two_tower.user_features, two_tower.active_user_embeddings, two_tower.active_video_embeddings, two_tower.visible_videos,
two_tower.settings, two_tower.model_versions, two_tower.model_documents, two_tower.model_events, two_tower.neighbour_lists,
two_tower.video_neighbours,
two_tower.video_popularity, two_tower.video_trends, two_tower.impressions, two_tower.experiments,
two_tower.promotions, two_tower.exploration_pool, two_tower.profile_inputs,
two_tower.user_change_log, two_tower.user_changes, two_tower.video_changes,
two_tower.pending_users,
two_tower.change_failures, two_tower.job_runs,
two_tower.models, two_tower.job_log, two_tower.failed_changes, two_tower.status, two_tower.jobs, two_tower.coverage,
two_tower.problems, two_tower.sizes to two_tower_viewer;
grant select (model_version, user_id, embedding, updated_at, length) on two_tower.user_embeddings to two_tower_viewer;
grant select (model_version, video_id, embedding, updated_at, placed) on two_tower.video_embeddings to two_tower_viewer;
grant execute on function
two_tower.active_version(), two_tower.own_version(), two_tower.backfilled_share(text), two_tower.require_page(int, int, int),
two_tower.preview_recommendations(uuid[], text, int, boolean),
two_tower.preview_contributions(uuid, uuid, text),
two_tower.job_definitions(), two_tower.cron_jobs(),
two_tower.accounts(), two_tower.cron_running(), two_tower.live_versions(), two_tower.count_coverage(text[]), two_tower.model_setting(text),
two_tower.setting_error(text, jsonb, text),
two_tower.unknown_decisions(), two_tower.hidden_catalogue(),
two_tower.change_triggers(), two_tower.lacking_triggers(), two_tower.liking_users(),
two_tower.count_by_profile(text), two_tower.coverage_problems(text, text, boolean, bigint, bigint)
to two_tower_viewer;
