CREATE SCHEMA auth;

CREATE SCHEMA extensions;

CREATE SCHEMA two_tower;

COMMENT ON SCHEMA two_tower IS 'pg-two-tower: model registry, embeddings, change log and operators'' routines';

CREATE EXTENSION IF NOT EXISTS plpython3u WITH SCHEMA pg_catalog;

COMMENT ON EXTENSION plpython3u IS 'PL/Python3U untrusted procedural language';

CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA extensions;

COMMENT ON EXTENSION vector IS 'vector data type and ivfflat and hnsw access methods';

CREATE TYPE two_tower.video_filter AS (
	tag_ids uuid[],
	all_tag_ids uuid[],
	no_tag_ids uuid[],
	performer_ids uuid[],
	all_performer_ids uuid[],
	no_performer_ids uuid[],
	makers text[],
	no_makers text[],
	series text[],
	no_series text[],
	price_min real,
	price_max real,
	duration_min integer,
	duration_max integer,
	released_after timestamp with time zone,
	filters text[],
	among uuid[],
	by_viewer boolean,
	viewer_id uuid
);

COMMENT ON TYPE two_tower.video_filter IS 'Which videos a list may have, as routines pass it; two_tower.passing() defines its meaning';

CREATE TYPE two_tower.list_question AS (
	kind text,
	video_id uuid,
	liked uuid[],
	noped uuid[],
	days integer,
	filter two_tower.video_filter,
	excluded uuid[],
	diversity real,
	user_id uuid
);

COMMENT ON TYPE two_tower.list_question IS 'A request for a list, as routines pass it';

CREATE TYPE two_tower.user_counts AS (
	user_id uuid,
	liked_tags jsonb,
	liked_performers jsonb,
	liked_makers jsonb,
	liked_labels jsonb,
	liked_series jsonb,
	liked_sources jsonb,
	liked_video_ids uuid[],
	noped_video_ids uuid[],
	like_count integer,
	nope_count integer,
	price_sum double precision,
	priced_count integer
);

COMMENT ON TYPE two_tower.user_counts IS 'Raw counts of one user, as routines pass them';

CREATE FUNCTION auth.uid() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE;

CREATE FUNCTION public.claim_session(liked uuid[], noped uuid[] DEFAULT '{}'::uuid[]) RETURNS integer
    LANGUAGE plpgsql;

COMMENT ON FUNCTION public.claim_session(liked uuid[], noped uuid[]) IS 'Turns a visitor''s likes and nopes into decisions of the caller, except on videos already decided on; how many. At most 500 in both';

CREATE FUNCTION public.embed_user(force boolean DEFAULT false, p_user_id uuid DEFAULT NULL::uuid) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION public.embed_user(force boolean, p_user_id uuid) IS 'Updates the features and embedding of the caller, or of the user on whose behalf service_role calls, before it returns. The vector is computed from the rows with and without force';

CREATE FUNCTION public.export_user_data(p_user_id uuid DEFAULT NULL::uuid) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION public.export_user_data(p_user_id uuid) IS 'All data about the caller, or about the user or reviewer on whose behalf service_role calls, as JSON: choices, decisions, reviews, what was shown, features and vectors';

CREATE FUNCTION public.get_item_embedding_feature_batch("limit" integer DEFAULT 1000, "offset" integer DEFAULT 0, after uuid DEFAULT NULL::uuid) RETURNS TABLE(video_id uuid, features jsonb)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION public.get_item_embedding_feature_batch("limit" integer, "offset" integer, after uuid) IS 'Payloads of videos in id order; pass the last id as "after" to page without an offset';

CREATE FUNCTION public.get_item_embedding_features(video_id uuid) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET row_security TO 'on';

COMMENT ON FUNCTION public.get_item_embedding_features(video_id uuid) IS 'The inputs of the item tower for a video, as JSON';

CREATE FUNCTION public.get_user_embedding_feature_batch("limit" integer DEFAULT 1000, "offset" integer DEFAULT 0, after uuid DEFAULT NULL::uuid) RETURNS TABLE(user_id uuid, features jsonb)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION public.get_user_embedding_feature_batch("limit" integer, "offset" integer, after uuid) IS 'Payloads of users who have decided on anything, in id order; pass the last id as "after" to page without an offset';

CREATE FUNCTION public.get_user_embedding_features(user_id uuid) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION public.get_user_embedding_features(user_id uuid) IS 'The inputs of the user tower of the version that serves a user, as JSON, and which version that is; for oneself, or for anyone as service_role';

CREATE FUNCTION public.log_shown(shown jsonb) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION public.log_shown(shown jsonb) IS 'Records what the caller was shown: rows as a list returned them. How many were kept: not those of deleted videos, of versions that are no longer live, or logged within the last day; 22023 for an invalid row, 54000 for more than the setting shown_per_day';

CREATE FUNCTION public.next_videos("limit" integer DEFAULT 20, tag_ids uuid[] DEFAULT NULL::uuid[], exclude uuid[] DEFAULT NULL::uuid[], because boolean DEFAULT false, all_tag_ids uuid[] DEFAULT NULL::uuid[], no_tag_ids uuid[] DEFAULT NULL::uuid[], performer_ids uuid[] DEFAULT NULL::uuid[], all_performer_ids uuid[] DEFAULT NULL::uuid[], no_performer_ids uuid[] DEFAULT NULL::uuid[], makers text[] DEFAULT NULL::text[], no_makers text[] DEFAULT NULL::text[], series text[] DEFAULT NULL::text[], no_series text[] DEFAULT NULL::text[], price_min real DEFAULT NULL::real, price_max real DEFAULT NULL::real, duration_min integer DEFAULT NULL::integer, duration_max integer DEFAULT NULL::integer, released_after timestamp with time zone DEFAULT NULL::timestamp with time zone, filters text[] DEFAULT NULL::text[]) RETURNS TABLE(video_id uuid, score real, rank integer, title text, thumbnail_url text, product_url text, reason text, model_version text, list_id uuid, propensity real, because_video_id uuid, because_title text)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION public.next_videos("limit" integer, tag_ids uuid[], exclude uuid[], because boolean, all_tag_ids uuid[], no_tag_ids uuid[], performer_ids uuid[], all_performer_ids uuid[], no_performer_ids uuid[], makers text[], no_makers text[], series text[], no_series text[], price_min real, price_max real, duration_min integer, duration_max integer, released_after timestamp with time zone, filters text[]) IS 'The next page for the caller, remembered as shown: what recommend_videos() would give without what was shown within the setting shown_again_after_hours; because adds the liked video that adds most to each score';

CREATE FUNCTION public.popular_videos_now("limit" integer DEFAULT 20, tag_ids uuid[] DEFAULT NULL::uuid[], exclude uuid[] DEFAULT NULL::uuid[], all_tag_ids uuid[] DEFAULT NULL::uuid[], no_tag_ids uuid[] DEFAULT NULL::uuid[], performer_ids uuid[] DEFAULT NULL::uuid[], all_performer_ids uuid[] DEFAULT NULL::uuid[], no_performer_ids uuid[] DEFAULT NULL::uuid[], makers text[] DEFAULT NULL::text[], no_makers text[] DEFAULT NULL::text[], series text[] DEFAULT NULL::text[], no_series text[] DEFAULT NULL::text[], price_min real DEFAULT NULL::real, price_max real DEFAULT NULL::real, duration_min integer DEFAULT NULL::integer, duration_max integer DEFAULT NULL::integer, released_after timestamp with time zone DEFAULT NULL::timestamp with time zone, filters text[] DEFAULT NULL::text[]) RETURNS TABLE(video_id uuid, score real, rank integer, title text, thumbnail_url text, product_url text, reason text, model_version text, list_id uuid, propensity real)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION public.popular_videos_now("limit" integer, tag_ids uuid[], exclude uuid[], all_tag_ids uuid[], no_tag_ids uuid[], performer_ids uuid[], all_performer_ids uuid[], no_performer_ids uuid[], makers text[], no_makers text[], series text[], no_series text[], price_min real, price_max real, duration_min integer, duration_max integer, released_after timestamp with time zone, filters text[]) IS 'The most popular videos of those that the caller may see, then the newest. Videos that fewer people like than the setting least_likers do not count as popular';

CREATE FUNCTION public.rank_candidates(video_ids uuid[], because boolean DEFAULT false) RETURNS TABLE(video_id uuid, score real, rank integer, because_video_id uuid, because_title text)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET row_security TO 'on';

COMMENT ON FUNCTION public.rank_candidates(video_ids uuid[], because boolean) IS 'The given videos, of those that the caller may see, in the order of the caller''s taste, rank 1 first. score is that of recommend_videos(); null for a video or a caller of whom nothing is known: these come last, by popularity, then as given. because adds the liked video that adds most to each score. At most 2000';

CREATE FUNCTION public.recommend_from(liked uuid[], noped uuid[] DEFAULT '{}'::uuid[], "limit" integer DEFAULT 20, tag_ids uuid[] DEFAULT NULL::uuid[], diversity real DEFAULT 0, exclude uuid[] DEFAULT NULL::uuid[], because boolean DEFAULT false, all_tag_ids uuid[] DEFAULT NULL::uuid[], no_tag_ids uuid[] DEFAULT NULL::uuid[], performer_ids uuid[] DEFAULT NULL::uuid[], all_performer_ids uuid[] DEFAULT NULL::uuid[], no_performer_ids uuid[] DEFAULT NULL::uuid[], makers text[] DEFAULT NULL::text[], no_makers text[] DEFAULT NULL::text[], series text[] DEFAULT NULL::text[], no_series text[] DEFAULT NULL::text[], price_min real DEFAULT NULL::real, price_max real DEFAULT NULL::real, duration_min integer DEFAULT NULL::integer, duration_max integer DEFAULT NULL::integer, released_after timestamp with time zone DEFAULT NULL::timestamp with time zone, filters text[] DEFAULT NULL::text[]) RETURNS TABLE(video_id uuid, score real, rank integer, title text, thumbnail_url text, product_url text, reason text, model_version text, list_id uuid, propensity real, because_video_id uuid, because_title text)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION public.recommend_from(liked uuid[], noped uuid[], "limit" integer, tag_ids uuid[], diversity real, exclude uuid[], because boolean, all_tag_ids uuid[], no_tag_ids uuid[], performer_ids uuid[], all_performer_ids uuid[], no_performer_ids uuid[], makers text[], no_makers text[], series text[], no_series text[], price_min real, price_max real, duration_min integer, duration_max integer, released_after timestamp with time zone, filters text[]) IS 'What to show next to a visitor who liked and noped these videos, of those that the caller may see; nothing is stored. because adds the one of these likes that adds most to each score. At most 500 in both';

CREATE FUNCTION public.recommend_videos("limit" integer DEFAULT 20, tag_ids uuid[] DEFAULT NULL::uuid[], diversity real DEFAULT 0, exclude uuid[] DEFAULT NULL::uuid[], because boolean DEFAULT false, all_tag_ids uuid[] DEFAULT NULL::uuid[], no_tag_ids uuid[] DEFAULT NULL::uuid[], performer_ids uuid[] DEFAULT NULL::uuid[], all_performer_ids uuid[] DEFAULT NULL::uuid[], no_performer_ids uuid[] DEFAULT NULL::uuid[], makers text[] DEFAULT NULL::text[], no_makers text[] DEFAULT NULL::text[], series text[] DEFAULT NULL::text[], no_series text[] DEFAULT NULL::text[], price_min real DEFAULT NULL::real, price_max real DEFAULT NULL::real, duration_min integer DEFAULT NULL::integer, duration_max integer DEFAULT NULL::integer, released_after timestamp with time zone DEFAULT NULL::timestamp with time zone, filters text[] DEFAULT NULL::text[], p_user_id uuid DEFAULT NULL::uuid) RETURNS TABLE(video_id uuid, score real, rank integer, title text, thumbnail_url text, product_url text, reason text, model_version text, list_id uuid, propensity real, because_video_id uuid, because_title text)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION public.recommend_videos("limit" integer, tag_ids uuid[], diversity real, exclude uuid[], because boolean, all_tag_ids uuid[], no_tag_ids uuid[], performer_ids uuid[], all_performer_ids uuid[], no_performer_ids uuid[], makers text[], no_makers text[], series text[], no_series text[], price_min real, price_max real, duration_min integer, duration_max integer, released_after timestamp with time zone, filters text[], p_user_id uuid) IS 'What to show next to the caller, or to the user on whose behalf service_role calls: videos that the caller may see and the user has not decided on, without the excluded, that pass the filters. diversity above 0 trades score for variety; because adds the liked video that adds most to each score';

CREATE FUNCTION public.set_choices(personalised boolean DEFAULT NULL::boolean, trained_on boolean DEFAULT NULL::boolean, never_makers text[] DEFAULT NULL::text[], never_tag_ids uuid[] DEFAULT NULL::uuid[], never_performer_ids uuid[] DEFAULT NULL::uuid[], p_user_id uuid DEFAULT NULL::uuid) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION public.set_choices(personalised boolean, trained_on boolean, never_makers text[], never_tag_ids uuid[], never_performer_ids uuid[], p_user_id uuid) IS 'Sets choices of the caller, or of the user on whose behalf service_role calls: whether lists use the own decisions (personalised), whether these count in training and popularity (trained_on), and the makers, tags and performers that no list may show. Null leaves a choice as it is, an empty array removes it. Returns all choices';

CREATE FUNCTION public.similar_videos(video_id uuid, "limit" integer DEFAULT 20, diversity real DEFAULT 0, tag_ids uuid[] DEFAULT NULL::uuid[], exclude uuid[] DEFAULT NULL::uuid[], all_tag_ids uuid[] DEFAULT NULL::uuid[], no_tag_ids uuid[] DEFAULT NULL::uuid[], performer_ids uuid[] DEFAULT NULL::uuid[], all_performer_ids uuid[] DEFAULT NULL::uuid[], no_performer_ids uuid[] DEFAULT NULL::uuid[], makers text[] DEFAULT NULL::text[], no_makers text[] DEFAULT NULL::text[], series text[] DEFAULT NULL::text[], no_series text[] DEFAULT NULL::text[], price_min real DEFAULT NULL::real, price_max real DEFAULT NULL::real, duration_min integer DEFAULT NULL::integer, duration_max integer DEFAULT NULL::integer, released_after timestamp with time zone DEFAULT NULL::timestamp with time zone, filters text[] DEFAULT NULL::text[]) RETURNS TABLE(video_id uuid, score real, rank integer, title text, thumbnail_url text, product_url text, reason text, model_version text, list_id uuid, propensity real)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION public.similar_videos(video_id uuid, "limit" integer, diversity real, tag_ids uuid[], exclude uuid[], all_tag_ids uuid[], no_tag_ids uuid[], performer_ids uuid[], all_performer_ids uuid[], no_performer_ids uuid[], makers text[], no_makers text[], series text[], no_series text[], price_min real, price_max real, duration_min integer, duration_max integer, released_after timestamp with time zone, filters text[]) IS 'Videos nearest to a video, of those that the caller may see, rank 1 first, without the excluded, that pass the filters. diversity above 0 trades score for variety';

CREATE FUNCTION public.trending_videos("limit" integer DEFAULT 20, "window" interval DEFAULT '7 days'::interval, tag_ids uuid[] DEFAULT NULL::uuid[], exclude uuid[] DEFAULT NULL::uuid[], all_tag_ids uuid[] DEFAULT NULL::uuid[], no_tag_ids uuid[] DEFAULT NULL::uuid[], performer_ids uuid[] DEFAULT NULL::uuid[], all_performer_ids uuid[] DEFAULT NULL::uuid[], no_performer_ids uuid[] DEFAULT NULL::uuid[], makers text[] DEFAULT NULL::text[], no_makers text[] DEFAULT NULL::text[], series text[] DEFAULT NULL::text[], no_series text[] DEFAULT NULL::text[], price_min real DEFAULT NULL::real, price_max real DEFAULT NULL::real, duration_min integer DEFAULT NULL::integer, duration_max integer DEFAULT NULL::integer, released_after timestamp with time zone DEFAULT NULL::timestamp with time zone, filters text[] DEFAULT NULL::text[]) RETURNS TABLE(video_id uuid, score real, rank integer, title text, thumbnail_url text, product_url text, reason text, model_version text, list_id uuid, propensity real)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION public.trending_videos("limit" integer, "window" interval, tag_ids uuid[], exclude uuid[], all_tag_ids uuid[], no_tag_ids uuid[], performer_ids uuid[], all_performer_ids uuid[], no_performer_ids uuid[], makers text[], no_makers text[], series text[], no_series text[], price_min real, price_max real, duration_min integer, duration_max integer, released_after timestamp with time zone, filters text[]) IS 'Videos that most people have liked in the last day, 7 or 30 days, as counted with popularity, of those that the caller may see; then popular ones, then the newest. Likes of fewer people than the setting least_likers do not count';

CREATE TABLE public.user_features (
    user_id uuid NOT NULL,
    liked_tags jsonb DEFAULT '{}'::jsonb NOT NULL,
    liked_performers jsonb DEFAULT '{}'::jsonb NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    liked_makers jsonb DEFAULT '{}'::jsonb NOT NULL,
    liked_labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    liked_series jsonb DEFAULT '{}'::jsonb NOT NULL,
    liked_sources jsonb DEFAULT '{}'::jsonb NOT NULL,
    liked_video_ids uuid[] DEFAULT '{}'::uuid[] NOT NULL,
    noped_video_ids uuid[] DEFAULT '{}'::uuid[] NOT NULL,
    like_count integer DEFAULT 0 NOT NULL,
    nope_count integer DEFAULT 0 NOT NULL,
    price_sum double precision DEFAULT 0 NOT NULL,
    priced_count integer DEFAULT 0 NOT NULL
);

CREATE VIEW two_tower.user_features WITH (security_invoker='true');

COMMENT ON VIEW two_tower.user_features IS 'public.user_features, which is ours in this database';

CREATE FUNCTION public.update_user_features(p_user_id uuid) RETURNS two_tower.user_features
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION public.update_user_features(p_user_id uuid) IS 'Recounts a user''s features, stores and returns them; for oneself, or for anyone as service_role';

CREATE FUNCTION two_tower.account_key() RETURNS name
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.account_key() IS 'The column of public.profiles with the user''s id: user_id, or id';

CREATE FUNCTION two_tower.accounts() RETURNS TABLE(user_id uuid, created_at timestamp with time zone)
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.accounts() IS 'The users with a profile, and since when, if the table says so';

CREATE FUNCTION two_tower.acting_user(p_user_id uuid) RETURNS uuid
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.acting_user(p_user_id uuid) IS 'The acting user: the caller, or the user on whose behalf service_role calls; 42501 for any other caller, 28000 if nobody is signed in';

CREATE FUNCTION two_tower.activate_model(p_version text, p_force boolean DEFAULT false, p_measured jsonb DEFAULT NULL::jsonb, p_overrides jsonb DEFAULT NULL::jsonb) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.activate_model(p_version text, p_force boolean, p_measured jsonb, p_overrides jsonb) IS 'Activates a backfilled version, in one transaction. TT003 says why its gate refuses; p_force overrules that, and is recorded. Readers see it at once; durable with the next commit that waits for the disk, or three times wal_writer_delay later. p_measured, p_overrides: as for two_tower.gate_metrics()';

CREATE FUNCTION two_tower.active_version() RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.active_version() IS 'The model version that serves everybody outside an experiment''s share, or null before the first activation';

CREATE FUNCTION two_tower.add_given(p_version text, p_kind text, p_ids uuid[], p_embeddings extensions.halfvec[]) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.add_given(p_version text, p_kind text, p_ids uuid[], p_embeddings extensions.halfvec[]) IS 'Adds vectors of videos or users, scaled to length 1, to a version that stage_given() began; how many. Skips unknown ids, users who opted out of personal lists, and vectors that are already there';

CREATE FUNCTION two_tower.allowed_videos(p_user_id uuid, p_video_ids uuid[]) RETURNS uuid[]
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION two_tower.allowed_videos(p_user_id uuid, p_video_ids uuid[]) IS 'Those of the videos that a list may show to the user, by what the user chose never to see and by the owner''s condition on who may see what';

CREATE FUNCTION two_tower.application_path() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.application_path() IS 'The search_path under which a session of the current user begins in this database, for triggers of the application that rely on it';

CREATE FUNCTION two_tower.ask_gate(p_version text, p_force boolean, p_measured jsonb DEFAULT NULL::jsonb, p_overrides jsonb DEFAULT NULL::jsonb) RETURNS jsonb
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.ask_gate(p_version text, p_force boolean, p_measured jsonb, p_overrides jsonb) IS 'Measures how wide the index of a backfilled version must be searched, and runs its gate; TT003 if that refuses and p_force does not overrule it, which is "forced" in the answer. p_measured, p_overrides: as for two_tower.gate_metrics()';

CREATE FUNCTION two_tower.attach_partitions(p_version text, p_patience interval DEFAULT '00:01:00'::interval) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.attach_partitions(p_version text, p_patience interval) IS 'Indexes the video vectors of a staged version and lets refreshes write it; false if that is already done, 55P03 if somebody has been writing vectors for longer than p_patience';

CREATE FUNCTION two_tower.attributes_of(p_video_id uuid) RETURNS TABLE(kind text, key text)
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.attributes_of(p_video_id uuid) IS 'A row for each attribute key of a video, by kind';

CREATE FUNCTION two_tower.backfill_batch(p_version text, p_kind text, p_after uuid DEFAULT NULL::uuid, p_limit integer DEFAULT 500, OUT last_id uuid, OUT seen integer, OUT done integer) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.backfill_batch(p_version text, p_kind text, p_after uuid, p_limit integer, OUT last_id uuid, OUT seen integer, OUT done integer) IS 'Embeds the next rows after p_after that a version lacks; the last one seen (null at the end), how many were seen, how many were free';

CREATE PROCEDURE two_tower.backfill_model(IN version text, IN force boolean DEFAULT false)
    LANGUAGE plpgsql;

COMMENT ON PROCEDURE two_tower.backfill_model(IN version text, IN force boolean) IS 'Stages a candidate and embeds all videos, and all users with a like, by the batch; call again to resume, or several times at once';

CREATE FUNCTION two_tower.backfill_step(INOUT state jsonb, OUT finished boolean, OUT phase text, OUT done bigint) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.backfill_step(INOUT state jsonb, OUT finished boolean, OUT phase text, OUT done bigint) IS 'One step of a backfill, from and to the state that begin_backfill() gave; phase is the next one (video, attach, user, finish), done how many rows this one embedded';

CREATE FUNCTION two_tower.backfilled_share(p_version text) RETURNS numeric
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.backfilled_share(p_version text) IS 'Share of videos and users that a live version has vectors of: 1 when its backfill is over, null for one that has none';

CREATE FUNCTION two_tower.begin_backfill(p_version text, p_force boolean DEFAULT false, p_measured jsonb DEFAULT NULL::jsonb, p_overrides jsonb DEFAULT NULL::jsonb, OUT state jsonb, OUT finished boolean, OUT phase text, OUT done bigint, OUT total bigint, OUT failure text, OUT failure_code text) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.begin_backfill(p_version text, p_force boolean, p_measured jsonb, p_overrides jsonb, OUT state jsonb, OUT finished boolean, OUT phase text, OUT done bigint, OUT total bigint, OUT failure text, OUT failure_code text) IS 'Stages a candidate and gives the state that backfill_step() begins with; failure says why it is rejected, which is committed then. p_measured, p_overrides: as two_tower.gate_metrics() takes them. Of total videos and users, done have vectors';

CREATE FUNCTION two_tower.begin_refresh(p_max_batches integer DEFAULT NULL::integer, p_max_duration interval DEFAULT NULL::interval, p_max_changes integer DEFAULT NULL::integer, p_all_jobs boolean DEFAULT false, OUT state jsonb, OUT finished boolean, OUT result jsonb, OUT jobs jsonb, OUT failure text, OUT failure_code text) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.begin_refresh(p_max_batches integer, p_max_duration interval, p_max_changes integer, p_all_jobs boolean, OUT state jsonb, OUT finished boolean, OUT result jsonb, OUT jobs jsonb, OUT failure text, OUT failure_code text) IS 'Begins a refresh: collects changes and, if there are any, opens a run in the job log. refresh_step() continues from this state until it is finished, within the given limits of batches, time, and users and videos. Popularity and purge follow if they are due; with p_all_jobs all other jobs, too';

CREATE FUNCTION two_tower.change_key(p_kind text, p_id uuid) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.change_key(p_kind text, p_id uuid) IS 'The advisory lock of one user or video';

CREATE FUNCTION two_tower.change_triggers() RETURNS TABLE(relation regclass, name text, enabled text, definition text, routine regprocedure, old_rows name, new_rows name)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.change_triggers() IS 'The triggers that the application''s tables must have, and when each fires, as in pg_trigger.tgenabled';

CREATE FUNCTION two_tower.changed_videos_of(p_user_ids uuid[]) RETURNS uuid[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION two_tower.changed_videos_of(p_user_ids uuid[]) IS 'The videos that these users decided on and that changed since they were last refreshed';

CREATE FUNCTION two_tower.check_neighbours(p_version text, p_videos jsonb) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.check_neighbours(p_version text, p_videos jsonb) IS 'Raises 22023 unless the neighbours of a version that is about to be registered are videos of its vocabulary, each once, and their weights finite';

CREATE FUNCTION two_tower.check_promotion() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.check_promotion() IS 'Trigger: refuses filters that a list would refuse (22023), and removes empty conditions from them';

CREATE FUNCTION two_tower.check_rows(p_version text, p_tower text, p_input_dim integer, p_sample jsonb, p_max_distance double precision) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.check_rows(p_version text, p_tower text, p_input_dim integer, p_sample jsonb, p_max_distance double precision) IS 'Raises 22023 unless the rows of a tower reproduce the sample recorded with it';

CREATE FUNCTION two_tower.check_setting() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.check_setting() IS 'Trigger: refuses a value that a setting cannot have (22023)';

CREATE FUNCTION two_tower.check_tower(p_tower text, p_content bytea, p_input_dim integer, p_weights bytea, p_sample jsonb, p_max_distance double precision) RETURNS void
    LANGUAGE plpython3u STABLE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.check_tower(p_tower text, p_content bytea, p_input_dim integer, p_weights bytea, p_sample jsonb, p_max_distance double precision) IS 'Raises 22023 with the reason unless the file is a tower that fulfils the contract and reproduces its parity sample';

CREATE FUNCTION two_tower.close_given(p_version text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.close_given(p_version text) IS 'Indexes a version of given vectors and makes it ready to be activated';

CREATE FUNCTION two_tower.close_partition(p_name text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.close_partition(p_name text) IS 'Revokes all access to a new table of schema two_tower from everybody but its owner';

CREATE FUNCTION two_tower.close_versions() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.close_versions() IS 'Until the transaction ends, nobody else writes vectors. 55P03 if somebody has been writing for two seconds';

CREATE FUNCTION two_tower.collect_user_changes() RETURNS integer
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.collect_user_changes() IS 'Moves what triggers logged into user_changes, from which refresh_batch() takes users, a row for each user; how many';

CREATE FUNCTION two_tower.compare_rates(p_rate_a double precision, p_variance_a double precision, p_users_a bigint, p_hits_a bigint, p_rate_b double precision, p_variance_b double precision, p_users_b bigint, p_hits_b bigint, OUT difference double precision, OUT low double precision, OUT high double precision, OUT p_value double precision) RETURNS record
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.compare_rates(p_rate_a double precision, p_variance_a double precision, p_users_a bigint, p_hits_a bigint, p_rate_b double precision, p_variance_b double precision, p_users_b bigint, p_hits_b bigint, OUT difference double precision, OUT low double precision, OUT high double precision, OUT p_value double precision) IS 'By how much rate b is above rate a, with a confidence sequence of 95 % and a p-value, valid for repeated looks; these are null for fewer than 50 users on either side, or fewer than 10 hits';

CREATE FUNCTION two_tower.compile_eligible(p_condition text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.compile_eligible(p_condition text) IS 'Creates two_tower.eligible() from a condition; null for none';

CREATE FUNCTION two_tower.compile_filter(p_filter two_tower.video_filter, p_viewer_id uuid) RETURNS two_tower.video_filter
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION two_tower.compile_filter(p_filter two_tower.video_filter, p_viewer_id uuid) IS 'A filter prepared for lists of a viewer (null: a visitor): without empty arrays, with what the viewer chose never to see and with the owner''s condition; null for none. 22023 if it is too large';

CREATE FUNCTION two_tower.compile_filters() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.compile_filters() IS 'Creates two_tower.passing_named() from two_tower.named_filters';

CREATE FUNCTION two_tower.compile_profile_keys() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.compile_profile_keys() IS 'Creates two_tower.profile_keys() from two_tower.profile_inputs';

CREATE FUNCTION two_tower.compute_tastes(p_video_ids uuid[], p_version text, p_by_content boolean DEFAULT false) RETURNS TABLE(video_id uuid, liked extensions.vector, noped extensions.vector)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.compute_tastes(p_video_ids uuid[], p_version text, p_by_content boolean) IS 'What a like and a nope of each of these videos add to a user, from the present rows; null if that is nothing, and no row for a video that does not exist. With p_by_content as if no video had been in the vocabulary';

CREATE FUNCTION two_tower.compute_users(p_user_ids uuid[], p_version text) RETURNS TABLE(user_id uuid, embedding extensions.halfvec, length real)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.compute_users(p_user_ids uuid[], p_version text) IS 'Vectors of these users from the present rows: as sums if the weights of the version are rows, otherwise by definition. Also the lengths of the sums, null if there are none. No row for users without likes, unless the version knows a key of the profile, for users who opted out of personal lists, or for a version of given vectors';

CREATE FUNCTION two_tower.compute_videos(p_video_ids uuid[], p_version text, p_engine text DEFAULT NULL::text) RETURNS TABLE(video_id uuid, embedding extensions.halfvec)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.compute_videos(p_video_ids uuid[], p_version text, p_engine text) IS 'Vectors of these videos from the present rows, by the engine of the version or the one named; no row for a video that does not exist';

CREATE FUNCTION two_tower.contents_of(p_video_id uuid) RETURNS TABLE(kind text, key text)
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.contents_of(p_video_id uuid) IS 'A row for each attribute key of a video, and for each word that describes it, by kind';

CREATE FUNCTION two_tower.count_by_profile(p_version text) RETURNS bigint
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.count_by_profile(p_version text) IS 'How many users have no like, and have, or should have, a vector of a version because of their profile';

CREATE FUNCTION two_tower.count_coverage(p_versions text[]) RETURNS TABLE(model_version text, liking_users bigint, missing_videos bigint, missing_users bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.count_coverage(p_versions text[]) IS 'Of each version, how many users have a like and so should have a vector of it, and how many videos, and users with a like or a profile that the version reads, lack one; it must be attached';

CREATE FUNCTION two_tower.count_decisions(p_user_ids uuid[]) RETURNS SETOF two_tower.user_counts
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.count_decisions(p_user_ids uuid[]) IS 'count_user_features() of those users who may be counted';

CREATE FUNCTION two_tower.count_hits(p_exact real[], p_scores real[]) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.count_hits(p_exact real[], p_scores real[]) IS 'How many of the exact best scores, best first, a list with these scores holds';

CREATE FUNCTION two_tower.count_user_features(p_user_ids uuid[]) RETURNS SETOF two_tower.user_counts
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION two_tower.count_user_features(p_user_ids uuid[]) IS 'Counts the likes and nopes of users by the videos'' attributes; no row for a user without either, or who opted out of personal lists';

CREATE FUNCTION two_tower.coverage_problems(p_version text, p_state text, p_backfilled boolean, p_missing_videos bigint, p_missing_users bigint) RETURNS TABLE(what text, detail text, remedy text)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.coverage_problems(p_version text, p_state text, p_backfilled boolean, p_missing_videos bigint, p_missing_users bigint) IS 'The rows of two_tower.problems that follow from a row of two_tower.coverage';

CREATE FUNCTION two_tower.create_partitions(p_version text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.create_partitions(p_version text) IS 'Creates the empty tables of a version''s vectors and tastes, unless they exist';

CREATE FUNCTION two_tower.cron_jobs() RETURNS TABLE(job text, jobid bigint, scheduled boolean, last_success timestamp with time zone, last_failure timestamp with time zone, last_error text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.cron_jobs() IS 'Each job as pg_cron has it: whether it is scheduled here and active, its last runs; no rows where there is no pg_cron';

CREATE FUNCTION two_tower.cron_running() RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.cron_running() IS 'Whether pg_cron''s launcher runs: terminating all sessions of a database ends it too, and it does not restart by itself; null if there is none, on a standby, or if the caller cannot see it';

CREATE FUNCTION two_tower.decision_label(p_value anyelement) RETURNS integer
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.decision_label(p_value anyelement) IS 'two_tower.label_of_word() of a decision, whatever type its column has';

CREATE FUNCTION two_tower.decision_weight(p_place bigint, p_recency double precision, p_given real) RETURNS real
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.decision_weight(p_place bigint, p_recency double precision, p_given real) IS 'The weight of a decision, by its place among its user''s decisions (how many are strictly newer) and its own weight';

CREATE FUNCTION two_tower.define_users(p_user_ids uuid[], p_version text, p_engine text DEFAULT NULL::text) RETURNS TABLE(user_id uuid, embedding extensions.halfvec, length real)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.define_users(p_user_ids uuid[], p_version text, p_engine text) IS 'Vectors of these users by the plain definition, encode_users() and infer(), by the engine of the version or the one named; and, for versions with neighbours whose user tower is there as rows, the lengths of their sums';

CREATE FUNCTION two_tower.diversify(p_version text, p_ids uuid[], p_scores real[], p_limit integer, p_diversity real) RETURNS TABLE(video_id uuid, score real, rank integer)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.diversify(p_version text, p_ids uuid[], p_scores real[], p_limit integer, p_diversity real) IS 'Selects p_limit of scored videos, trading score for difference from those selected before; diversity 0 keeps the order';

CREATE FUNCTION two_tower.draw_exploration() RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.draw_exploration() IS 'Draws the videos that exploration shows today: the 500 with the fewest impressions; how many were drawn. Nothing if the setting exploration_share is 0, or if they were already drawn today';

CREATE FUNCTION two_tower.drop_old_impressions(p_patience interval DEFAULT '00:00:02'::interval) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.drop_old_impressions(p_patience interval) IS 'Drops the partitions of two_tower.impressions that are older than the setting impressions_kept_days, without blocking anybody; how many';

CREATE FUNCTION two_tower.duration_of(p_value anyelement) RETURNS integer
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.duration_of(p_value anyelement) IS 'The duration in whole seconds from a value of any type; null if it is not a number, negative, or too large for an int';

CREATE FUNCTION two_tower.duration_of(p_value anyelement, p_any integer) RETURNS integer
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.duration_of(p_value anyelement, p_any integer) IS 'two_tower.duration_of() of anything else';

CREATE FUNCTION two_tower.duration_of(p_value double precision, p_own double precision) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.duration_of(p_value double precision, p_own double precision) IS 'two_tower.duration_of() of a number in double precision';

CREATE FUNCTION two_tower.duration_of(p_value real, p_own double precision) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.duration_of(p_value real, p_own double precision) IS 'two_tower.duration_of() of a number in single precision';

CREATE FUNCTION two_tower.duration_of(p_value integer, p_own double precision) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.duration_of(p_value integer, p_own double precision) IS 'two_tower.duration_of() of an int';

CREATE FUNCTION two_tower.duration_of(p_value numeric, p_own double precision) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.duration_of(p_value numeric, p_own double precision) IS 'two_tower.duration_of() of a numeric';

CREATE FUNCTION two_tower.duration_of(p_value money, p_own double precision) RETURNS integer
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.duration_of(p_value money, p_own double precision) IS 'two_tower.duration_of() of money';

CREATE FUNCTION two_tower.duration_of_word(p_word text) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.duration_of_word(p_word text) IS 'two_tower.duration_of() of a number that is printed so; null for any other text';

CREATE FUNCTION two_tower.eligible(p_viewer_id uuid, p_video_id uuid) RETURNS SETOF boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT true;
END;

COMMENT ON FUNCTION two_tower.eligible(p_viewer_id uuid, p_video_id uuid) IS 'A row if a video may be shown to this user (null: a visitor), else none; two_tower.set_eligible_when() sets the condition. To drop or retype a column that the condition names: select two_tower.set_eligible_when(null), change the column, and set it again';

CREATE FUNCTION two_tower.embed_users(user_ids uuid[], version text DEFAULT NULL::text) RETURNS TABLE(user_id uuid, embedding extensions.halfvec)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.embed_users(user_ids uuid[], version text) IS 'Vectors computed from the present rows, without storing them; no row for a user without likes, or a profile that the version reads';

CREATE FUNCTION two_tower.embed_videos(video_ids uuid[], version text DEFAULT NULL::text) RETURNS TABLE(video_id uuid, embedding extensions.halfvec)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.embed_videos(video_ids uuid[], version text) IS 'Vectors computed from the present rows, without storing them';

CREATE FUNCTION two_tower.encode_users(p_user_ids uuid[], p_version text) RETURNS TABLE(user_id uuid, input extensions.sparsevec)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1';

COMMENT ON FUNCTION two_tower.encode_users(p_user_ids uuid[], p_version text) IS 'Raw user-tower inputs, one sparse vector of user_dim counts per user who likes or dislikes anything';

CREATE FUNCTION two_tower.encode_videos(p_video_ids uuid[], p_version text, p_by_content boolean DEFAULT false) RETURNS TABLE(video_id uuid, input extensions.sparsevec)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1';

COMMENT ON FUNCTION two_tower.encode_videos(p_video_ids uuid[], p_version text, p_by_content boolean) IS 'Raw item-tower inputs, one sparse vector of item_dim counts per video that exists; with p_by_content as if no video had been met before';

CREATE FUNCTION two_tower.exact_scores(p_version text, p_vector extensions.halfvec, p_limit integer, p_excluded uuid[], p_liked uuid[], p_weights real[], p_length real) RETURNS real[]
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.exact_scores(p_version text, p_vector extensions.halfvec, p_limit integer, p_excluded uuid[], p_liked uuid[], p_weights real[], p_length real) IS 'The best scores that nearest_videos() could give, from the score of every video';

CREATE FUNCTION two_tower.expected_effect(p_rate double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.expected_effect(p_rate double precision) IS 'By about how much a rate may be expected to change: what confidence sequences of rates are tightest for';

CREATE FUNCTION two_tower.experiment_coverage(p_experiment integer) RETURNS TABLE(model_version text, videos bigint, share double precision, low double precision, high double precision)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.experiment_coverage(p_experiment integer) IS 'How many videos each version of an experiment showed, and the share of the catalogue that it shows to as many users as the other has, with an interval of 95 % for one look';

CREATE FUNCTION two_tower.experiment_days(p_experiment integer) RETURNS TABLE(day date, model_version text, users bigint, shown bigint, likes bigint, nopes bigint, like_rate double precision, like_low double precision, like_high double precision, like_variance double precision, nope_rate double precision, nope_low double precision, nope_high double precision, nope_variance double precision)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.experiment_days(p_experiment integer) IS 'An experiment from its start to the end of each day (UTC): for each version how many users it showed how many videos, how many of these they liked and noped afterwards, and the rates with confidence sequences of 95 %, which may be looked at daily, and their variances';

CREATE FUNCTION two_tower.experiment_tests(p_experiment integer) RETURNS TABLE(day date, rate text, difference double precision, low double precision, high double precision, p_value double precision)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.experiment_tests(p_experiment integer) IS 'By how much the challenger''s like and nope rates are above the control''s, from the start to the end of each day, with a confidence sequence of 95 %, and the least p-value so far, which may be looked at daily: at 0.05 and below the difference is one';

CREATE FUNCTION two_tower.few_by_index(p_filter two_tower.video_filter) RETURNS uuid[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION two_tower.few_by_index(p_filter two_tower.video_filter) IS 'All videos that pass a filter, if one of its conditions has an index and is met by so few that looking at each is cheapest; otherwise null';

CREATE FUNCTION two_tower.few_passing(p_filter two_tower.video_filter) RETURNS uuid[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'on';

COMMENT ON FUNCTION two_tower.few_passing(p_filter two_tower.video_filter) IS 'All videos that pass a filter, if they are so few that comparing each is cheapest; otherwise null';

CREATE FUNCTION two_tower.few_videos() RETURNS integer
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.few_videos() IS 'Up to how many videos comparing them one by one is faster than finding the best of them by the index; from the size of the catalogue at the last analyze';

CREATE FUNCTION two_tower.finish_backfill(p_version text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.finish_backfill(p_version text) IS 'Notes that a version is backfilled; 55000 says what it lacks';

CREATE FUNCTION two_tower.forget_impressions() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.forget_impressions() IS 'Trigger: deletes a user''s impressions with the user';

CREATE FUNCTION two_tower.forget_user(p_user_id uuid) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.forget_user(p_user_id uuid) IS 'Removes all data about a user, with or without an account: decisions, reviews, features, vectors, what was shown, choices, pending changes; how many of each. The account stays; deleting it is the application''s task';

CREATE FUNCTION two_tower.gate_coverage(p_version text, OUT videos bigint, OUT users bigint) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.gate_coverage(p_version text, OUT videos bigint, OUT users bigint) IS 'How many videos, and users with a like or a profile that the version reads, lack a vector of an attached version';

CREATE FUNCTION two_tower.gate_metrics(p_version text, p_measured jsonb DEFAULT NULL::jsonb, p_overrides jsonb DEFAULT NULL::jsonb) RETURNS text[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.gate_metrics(p_version text, p_measured jsonb, p_overrides jsonb) IS 'Reasons why a version''s metrics are too bad to replace the active one or, as the first, to beat popularity; none if they suffice. p_measured: metrics by version, its own and the active one''s, if they were measured again on the same likes (else the recorded ones count), and distances by what was compared. p_overrides: gate settings for this call';

CREATE FUNCTION two_tower.gate_model(p_version text, p_measured jsonb DEFAULT NULL::jsonb, p_overrides jsonb DEFAULT NULL::jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.gate_model(p_version text, p_measured jsonb, p_overrides jsonb) IS 'What the gate of two_tower.activate_model() finds: coverage, parity, recall of the index, metrics, and every reason to say no. p_measured, p_overrides: as for two_tower.gate_metrics()';

CREATE FUNCTION two_tower.gate_parity(p_version text, p_sample integer DEFAULT NULL::integer) RETURNS double precision
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.gate_parity(p_version text, p_sample integer) IS 'Largest cosine distance, over a sample, between what a version has stored and what it computes now';

CREATE FUNCTION two_tower.gate_recall(p_version text, p_sample integer DEFAULT NULL::integer) RETURNS double precision
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.gate_recall(p_version text, p_sample integer) IS 'Share of the 20 exact best videos that a version''s lists hold, over a sample of users';

CREATE FUNCTION two_tower.gate_replay(p_replay jsonb, p_max_drop double precision) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.gate_replay(p_replay jsonb, p_max_drop double precision) IS 'Why a replay, as two-tower replay measures it, does not let a version serve; null if it does';

CREATE FUNCTION two_tower.gate_setting(p_name text, p_overrides jsonb DEFAULT NULL::jsonb) RETURNS double precision
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.gate_setting(p_name text, p_overrides jsonb) IS 'A limit of the gate: the override of this call, else that of two_tower.settings; 22023 names an unknown override';

CREATE FUNCTION two_tower.given_decisions(p_user_id uuid) RETURNS TABLE(video_id uuid, label integer, weight real)
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.given_decisions(p_user_id uuid) IS 'All decisions of a user, with the label of each (null for an unknown word) and its own weight';

CREATE FUNCTION two_tower.given_versions() RETURNS text[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.given_versions() IS 'The versions whose vectors were computed elsewhere: refreshes write nothing to them, but remove deleted users and videos';

CREATE FUNCTION two_tower.guard_all_weights() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.guard_all_weights() IS 'Trigger: refuses a truncate';

CREATE FUNCTION two_tower.guard_weights() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.guard_weights() IS 'Trigger: refuses changes of the weights of a registered version';

CREATE FUNCTION two_tower.has_onnxruntime() RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.has_onnxruntime() IS 'Whether the engine onnxruntime can be used in this server';

CREATE FUNCTION two_tower.hidden_catalogue(OUT detail text, OUT remedy text) RETURNS record
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.hidden_catalogue(OUT detail text, OUT remedy text) IS 'Why no video of the catalogue can be in a list, and what mends it; null if one can be, or if there is no video';

CREATE FUNCTION two_tower.history_of(p_user_id uuid, p_version text, OUT decided uuid[], OUT liked uuid[], OUT weights real[]) RETURNS record
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION two_tower.history_of(p_user_id uuid, p_version text, OUT decided uuid[], OUT liked uuid[], OUT weights real[]) IS 'A user''s decisions as a list by a version needs them: all the videos, the liked ones, and the weight of each of these in the user''s sum (null: 1)';

CREATE FUNCTION two_tower.hold_versions(p_who text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '0';

COMMENT ON FUNCTION two_tower.hold_versions(p_who text) IS 'Until the transaction ends, the set of live versions stays as it is read from now on; p_who: batch, or client for one user''s own call';

CREATE FUNCTION two_tower.hold_viewer(p_user_id uuid) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.hold_viewer(p_user_id uuid) IS 'Locks a user until the transaction ends, against other writers of this user''s impressions and against deletion; 28000 for null, P0002 if there is no such user, 40001 if the snapshot of the transaction is older than what was logged';

CREATE FUNCTION two_tower.id_of(p_value anyelement) RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.id_of(p_value anyelement) IS 'The id from a value of any type; 00000000-0000-0000-0000-000000000000 if it has none';

CREATE FUNCTION two_tower.id_of(p_value anyelement, p_any integer) RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.id_of(p_value anyelement, p_any integer) IS 'two_tower.id_of() of anything else';

CREATE FUNCTION two_tower.id_of(p_value uuid, p_own double precision) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.id_of(p_value uuid, p_own double precision) IS 'two_tower.id_of() of an id';

CREATE FUNCTION two_tower.id_of_word(p_word text) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.id_of_word(p_word text) IS 'two_tower.id_of() of what is printed so';

CREATE FUNCTION two_tower.in_share(p_user_id uuid, p_experiment integer, p_share double precision) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.in_share(p_user_id uuid, p_experiment integer, p_share double precision) IS 'Whether a user is in the share of an experiment, which is drawn by hash; null for null';

CREATE FUNCTION two_tower.index_partitions(p_version text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.index_partitions(p_version text) IS 'Orders and indexes the video vectors of a staged version, before it is attached; false if that is already done';

CREATE FUNCTION two_tower.infer(p_version text, p_tower text, p_inputs extensions.sparsevec[], p_engine text DEFAULT NULL::text) RETURNS extensions.halfvec[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.infer(p_version text, p_tower text, p_inputs extensions.sparsevec[], p_engine text) IS 'Vectors for raw inputs of a tower, in their order, by the engine of the version or the one named';

CREATE FUNCTION two_tower.infer_onnxruntime(p_version text, p_tower text, p_packed bytea) RETURNS text[]
    LANGUAGE plpython3u STABLE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.infer_onnxruntime(p_version text, p_tower text, p_packed bytea) IS 'The engine onnxruntime: vectors, as text, for concatenated sparsevec_send inputs, in their order';

CREATE FUNCTION two_tower.infer_sql(p_version text, p_tower text, p_inputs extensions.sparsevec[]) RETURNS extensions.halfvec[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1';

COMMENT ON FUNCTION two_tower.infer_sql(p_version text, p_tower text, p_inputs extensions.sparsevec[]) IS 'The engine sql: vectors for raw inputs of a tower, in their order';

CREATE FUNCTION two_tower.input_numbers() RETURNS TABLE(tower text, place integer, name text)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.input_numbers() IS 'The numbers that come first in the input of each tower; place is the position, from 1';

CREATE FUNCTION two_tower.input_segments() RETURNS TABLE(tower text, place integer, segment text, kind text, many boolean)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.input_segments() IS 'The segments of each tower''s input after the numbers, in order, with the kind of their keys';

CREATE FUNCTION two_tower.interval_radius(p_variance double precision, p_deviation double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.interval_radius(p_variance double precision, p_deviation double precision) IS 'Half the width of a confidence sequence of 95 % for a normal estimate of this variance, tightest for effects of about the deviation';

CREATE FUNCTION two_tower.is_indexed(p_column text, p_type text DEFAULT NULL::text) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.is_indexed(p_column text, p_type text) IS 'Whether an index of public.videos begins with this column; with a type, whether the column has this type and an index that finds ranges';

CREATE FUNCTION two_tower.is_service() RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.is_service() IS 'Whether the caller is service_role, or the owner';

CREATE FUNCTION two_tower.job_definitions() RETURNS TABLE(job text, cron_name text, schedule text, command text)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.job_definitions() IS 'The jobs: their names in the job log and in pg_cron, their schedules and commands';

CREATE FUNCTION two_tower.job_due(p_job text) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.job_due(p_job text) IS 'Whether a daily or hourly job has not succeeded for its period, nor failed in the last hour. A job that pg_cron has scheduled is left to pg_cron for twice as long';

CREATE TABLE two_tower.impressions (
    user_id uuid NOT NULL,
    shown_at timestamp with time zone DEFAULT now() NOT NULL,
    list_id uuid NOT NULL,
    video_id uuid NOT NULL,
    rank integer NOT NULL,
    model_version text,
    reason text NOT NULL,
    propensity real,
    CONSTRAINT impressions_propensity_check CHECK (((propensity > (0)::double precision) AND (propensity <= (1)::double precision))),
    CONSTRAINT impressions_rank_check CHECK ((rank > 0))
)
PARTITION BY RANGE (shown_at);

COMMENT ON TABLE two_tower.impressions IS 'What was shown to whom: written by log_shown() and next_videos(), a partition for each day';

COMMENT ON COLUMN two_tower.impressions.list_id IS 'The id that the list returned; two_tower.was_filtered() says whether the list had filters';

COMMENT ON COLUMN two_tower.impressions.propensity IS 'Probability of the video at this rank; null if the client did not give it';

CREATE FUNCTION two_tower.keep_shown(p_rows two_tower.impressions[]) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.keep_shown(p_rows two_tower.impressions[]) IS 'Records what the caller was shown, now. How many were kept: not those of deleted videos, of versions that are no longer live, or logged within the last day; 28000 if nobody is signed in, 22023 for an invalid row, 54000 for more than the setting shown_per_day';

CREATE FUNCTION two_tower.keys_of(p_value jsonb) RETURNS TABLE(key text)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.keys_of(p_value jsonb) IS 'The keys of a value: the elements of an array, or the value itself; none for an object or null';

CREATE FUNCTION two_tower.label_of_word(p_word text) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.label_of_word(p_word text) IS '1 for like, 0 for nope, -1 for skip, in any case and with blanks around; null for any other word, which counts as nothing';

CREATE FUNCTION two_tower.lacking_triggers() RETURNS TABLE(relation regclass, name text, enabled text, definition text)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.lacking_triggers() IS 'Those of two_tower.change_triggers() that are missing, or do not fire when they should';

CREATE FUNCTION two_tower.like_reasons(p_version text, p_video_ids uuid[], p_liked uuid[], p_weights real[], p_few uuid[]) RETURNS TABLE(video_id uuid, because_video_id uuid)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION two_tower.like_reasons(p_version text, p_video_ids uuid[], p_liked uuid[], p_weights real[], p_few uuid[]) IS 'For each of these videos, the like that adds most to its score, of p_liked with their weights (null: 1) and of p_few, of which only the content counts; no row if none adds, or if the towers are not sums';

CREATE FUNCTION two_tower.liking_users() RETURNS SETOF uuid
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.liking_users() IS 'Users who should have a vector: those with a like of an existing video who have not opted out';

CREATE FUNCTION two_tower.link_reviewers() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '1s';

COMMENT ON FUNCTION two_tower.link_reviewers() IS 'Links reviewers to users, so that a deleted user''s reviews are deleted too; how many reviews were linked';

CREATE FUNCTION two_tower.list_candidates(p_question two_tower.list_question, p_limit integer) RETURNS TABLE(video_id uuid, score real, rank integer, reason text, model_version text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION two_tower.list_candidates(p_question two_tower.list_question, p_limit integer) IS 'The best videos for a list, before they are restricted to those that the caller may read; 22023 for an argument out of bounds, 28000 for a personal list if nobody is signed in';

CREATE FUNCTION two_tower.list_for_caller(p_question two_tower.list_question, p_limit integer) RETURNS TABLE(video_id uuid, score real, rank integer, title text, thumbnail_url text, product_url text, reason text, model_version text, list_id uuid, propensity real)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET row_security TO 'on';

COMMENT ON FUNCTION two_tower.list_for_caller(p_question two_tower.list_question, p_limit integer) IS 'The result of steer_list(), restricted to videos that the caller may read, with the id of the list and the propensity of each. 22023 for an argument out of bounds, P0002 for a video that the caller cannot see';

CREATE FUNCTION two_tower.list_id(p_whose uuid, p_version text, p_video_ids uuid[], p_filter two_tower.video_filter) RETURNS uuid
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.list_id(p_whose uuid, p_version text, p_video_ids uuid[], p_filter two_tower.video_filter) IS 'The id of a list, derived from its content and from whether filters were used';

CREATE FUNCTION two_tower.lists_by_chance(p_days integer) RETURNS TABLE(user_id uuid, list_id uuid, shown_at timestamp with time zone, left_out text)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.lists_by_chance(p_days integer) IS 'Lists of the last days with propensities below 1, and why a list cannot be used for a replay: filtered, opted_out or chosen_since';

CREATE FUNCTION two_tower.live_versions() RETURNS text[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.live_versions() IS 'The versions whose vectors every refresh writes: a rollback must lose no freshness';

CREATE FUNCTION two_tower.lock_changes(p_kind text, p_ids uuid[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.lock_changes(p_kind text, p_ids uuid[]) IS 'Waits until no other transaction refreshes any of these, and locks them';

CREATE FUNCTION two_tower.log_content_vector() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.log_content_vector() IS 'Trigger: logs the video of a vector that came, went or changed';

CREATE FUNCTION two_tower.log_deleted_attributes() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.log_deleted_attributes() IS 'Trigger: logs videos that lost a tag or performer';

CREATE FUNCTION two_tower.log_deleted_decisions() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.log_deleted_decisions() IS 'Trigger: logs the users of deleted decisions';

CREATE FUNCTION two_tower.log_deleted_videos() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.log_deleted_videos() IS 'Trigger: logs deleted videos';

CREATE FUNCTION two_tower.log_inserted_attributes() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.log_inserted_attributes() IS 'Trigger: logs videos that got a tag or performer';

CREATE FUNCTION two_tower.log_inserted_decisions() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.log_inserted_decisions() IS 'Trigger: logs the users of inserted decisions';

CREATE FUNCTION two_tower.log_inserted_videos() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.log_inserted_videos() IS 'Trigger: logs inserted videos';

CREATE FUNCTION two_tower.log_profile() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.log_profile() IS 'Trigger: logs the user of a profile that came, went or changed in what towers read';

CREATE FUNCTION two_tower.log_row() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.log_row() IS 'Trigger: logs the user or video of one row, whose column is its argument';

CREATE FUNCTION two_tower.log_truncated_decisions() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.log_truncated_decisions() IS 'Trigger: logs everybody';

CREATE FUNCTION two_tower.log_truncated_videos() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.log_truncated_videos() IS 'Trigger: logs every video';

CREATE FUNCTION two_tower.log_updated_attributes() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.log_updated_attributes() IS 'Trigger: logs videos of which a tag or performer changed';

CREATE FUNCTION two_tower.log_updated_decisions() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.log_updated_decisions() IS 'Trigger: logs the users of decisions that an update changed';

CREATE FUNCTION two_tower.log_updated_videos() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.log_updated_videos() IS 'Trigger: logs videos of which an update changed an input, and whether users are made of it';

CREATE FUNCTION two_tower.log_verified(p_result jsonb) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.log_verified(p_result jsonb) IS 'Notes in the job log what a comparison found: users and videos compared, differing by kind, whole or a sample, how many were marked';

CREATE FUNCTION two_tower.make_durable() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.make_durable() IS 'Once its transaction has committed, no crash can undo earlier commits. Call it after activate_model() or rollback_model(), whose own commits do not wait for the disk';

CREATE FUNCTION two_tower.make_impression_day(p_day date) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.make_impression_day(p_day date) IS 'Creates the partition of two_tower.impressions for a day (UTC), unless it exists';

CREATE FUNCTION two_tower.make_triggers() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.make_triggers() IS 'Creates the triggers of two_tower.lacking_triggers(), and drops triggers of ours that are no longer needed';

CREATE FUNCTION two_tower.mark_changes(p_kind text, p_ids uuid[]) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.mark_changes(p_kind text, p_ids uuid[]) IS 'Puts these users, or these videos and their likers, into the change log for the next refresh; how many';

CREATE FUNCTION two_tower.mark_users(p_recent interval DEFAULT NULL::interval, p_min_likes integer DEFAULT 1, p_include_existing boolean DEFAULT false, p_limit integer DEFAULT NULL::integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.mark_users(p_recent interval, p_min_likes integer, p_include_existing boolean, p_limit integer) IS 'Puts the users of stale_users() into the change log, for the next refresh; how many';

CREATE FUNCTION two_tower.may_use_cron() RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.may_use_cron() IS 'Whether there is pg_cron here, and the caller may use it';

CREATE FUNCTION two_tower.model_part_frozen() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.model_part_frozen() IS 'Trigger: refuses to change or delete a part of a registered version';

CREATE FUNCTION two_tower.model_rows(p_version text, p_tower text, p_part text) RETURNS TABLE(at integer, weight extensions.vector)
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.model_rows(p_version text, p_tower text, p_part text) IS 'The rows of one part of a tower';

CREATE FUNCTION two_tower.model_setting(p_name text) RETURNS double precision
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.model_setting(p_name text) IS 'A number that two_tower.settings must have';

CREATE FUNCTION two_tower.model_transition() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.model_transition() IS 'Trigger: refuses transitions that the lifecycle does not have, and records the others in two_tower.model_events';

CREATE FUNCTION two_tower.named_id(p_kind text, p_name text) RETURNS uuid
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.named_id(p_kind text, p_name text) IS 'The id of an imported video, tag or performer: the same name has the same id in every database, so models can travel between them';

CREATE FUNCTION two_tower.nearest_videos(p_version text, p_vector extensions.halfvec, p_limit integer, p_excluded uuid[], p_filter two_tower.video_filter, p_diversity real, p_liked uuid[] DEFAULT '{}'::uuid[], p_weights real[] DEFAULT NULL::real[], p_length real DEFAULT NULL::real, p_margin integer DEFAULT NULL::integer, OUT ids uuid[], OUT scores real[], OUT among uuid[]) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION two_tower.nearest_videos(p_version text, p_vector extensions.halfvec, p_limit integer, p_excluded uuid[], p_filter two_tower.video_filter, p_diversity real, p_liked uuid[], p_weights real[], p_length real, p_margin integer, OUT ids uuid[], OUT scores real[], OUT among uuid[]) IS 'The visible videos that score best for a vector, without the excluded and those that do not pass the filter, best first. A score is the cosine and, with p_length, the length of the sum that the vector was before it was scaled to 1, what neighbours of p_liked add; p_weights: the weight of each like, 1 if null. p_margin: another width of the search than that of the version. among: as search_videos()';

CREATE FUNCTION two_tower.own_popularity() RETURNS TABLE(days integer, video_id uuid, score double precision, likers integer, as_of timestamp with time zone, counted_at timestamp with time zone)
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.own_popularity() IS 'Likes per video of the users of this database, each halved per half-life of age relative to the newest (as_of), and by how many people: of all time (days 0), and within the last so many days, without a score';

CREATE FUNCTION two_tower.own_reasons(p_video_ids uuid[], p_user_id uuid DEFAULT NULL::uuid) RETURNS TABLE(video_id uuid, because_video_id uuid)
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION two_tower.own_reasons(p_video_ids uuid[], p_user_id uuid) IS 'For each of these videos, the video liked by the caller or user that adds most to its score; no row if none adds, or if the towers are not sums';

CREATE FUNCTION two_tower.own_scores(p_video_ids uuid[]) RETURNS TABLE(video_id uuid, score real, place integer)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION two_tower.own_scores(p_video_ids uuid[]) IS 'Scores of these videos for the caller, as in recommend_videos(), and their order; null if nothing is known. 28000 if nobody is signed in, 22023 for too many';

CREATE FUNCTION two_tower.own_version() RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.own_version() IS 'The model version that serves the caller; the active one if nobody is signed in';

CREATE FUNCTION two_tower.passing(p_filter two_tower.video_filter, p_video_id uuid) RETURNS SETOF boolean
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.passing(p_filter two_tower.video_filter, p_video_id uuid) IS 'A row where the video passes the filter, else none';

CREATE FUNCTION two_tower.passing_named(p_name text, p_video_id uuid) RETURNS SETOF boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT true
   WHERE false;
END;

COMMENT ON FUNCTION two_tower.passing_named(p_name text, p_video_id uuid) IS 'A row if a video passes the filter of this name, else none; two_tower.set_filter() defines it. To drop or retype a column that a filter names: select two_tower.set_filter(name, null), change the column, and define it again';

CREATE FUNCTION two_tower.personalised(p_user_ids uuid[]) RETURNS uuid[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION two_tower.personalised(p_user_ids uuid[]) IS 'Those of these users who have not opted out of personal lists';

CREATE FUNCTION two_tower.place_by_content(p_version text, p_positions integer[], p_values real[]) RETURNS extensions.vector
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.place_by_content(p_version text, p_positions integer[], p_values real[]) IS 'The place of a video by its content, without the bias, from the positions and values of its raw input; null if the tower has no layer';

CREATE FUNCTION two_tower.place_of_content(p_video_ids uuid[], p_version text) RETURNS TABLE(video_id uuid, embedding extensions.halfvec)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.place_of_content(p_video_ids uuid[], p_version text) IS 'The places of these videos by their content alone, as if the version did not know them; no row if the content says nothing';

CREATE FUNCTION two_tower.place_of_the_unknown(p_version text) RETURNS extensions.halfvec
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.place_of_the_unknown(p_version text) IS 'The vector of a version for a video of which it knows nothing';

CREATE FUNCTION two_tower.popular_videos(p_limit integer, p_excluded uuid[], p_filter two_tower.video_filter DEFAULT NULL::two_tower.video_filter, p_least_likers integer DEFAULT 1) RETURNS TABLE(video_id uuid, score real, reason text)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.popular_videos(p_limit integer, p_excluded uuid[], p_filter two_tower.video_filter, p_least_likers integer) IS 'Visible videos by popularity, if at least so many people like them, then by date of publication, without the excluded and those that do not pass the filter';

CREATE FUNCTION two_tower.preview_contributions(p_user_id uuid, p_video_id uuid, p_version text) RETURNS TABLE(kind text, because_video_id uuid, value double precision)
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.preview_contributions(p_user_id uuid, p_video_id uuid, p_version text) IS 'What each like and nope of a user and the profile add to the score of a video by a version, and what is the same for everybody; their sum is the score of preview_recommendations(). No row if the towers of the version are not sums';

CREATE FUNCTION two_tower.preview_recommendations(p_user_ids uuid[], p_version text DEFAULT NULL::text, p_limit integer DEFAULT 20, p_include_known boolean DEFAULT false) RETURNS TABLE(user_id uuid, rank integer, video_id uuid, score real, reason text, decision text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.preview_recommendations(p_user_ids uuid[], p_version text, p_limit integer, p_include_known boolean) IS 'What any version that has vectors would recommend to users, from stored vectors; with p_include_known also videos they decided on';

CREATE FUNCTION two_tower.price_of(p_value anyelement) RETURNS double precision
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.price_of(p_value anyelement) IS 'The price in single precision from a value of any type; null if it is not a number, negative, not below 1e12, or too small';

CREATE FUNCTION two_tower.price_of(p_value anyelement, p_any integer) RETURNS double precision
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.price_of(p_value anyelement, p_any integer) IS 'two_tower.price_of() of anything else';

CREATE FUNCTION two_tower.price_of(p_value double precision, p_own double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.price_of(p_value double precision, p_own double precision) IS 'two_tower.price_of() of a number in double precision';

CREATE FUNCTION two_tower.price_of(p_value real, p_own double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.price_of(p_value real, p_own double precision) IS 'two_tower.price_of() of a number in single precision';

CREATE FUNCTION two_tower.price_of(p_value integer, p_own double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.price_of(p_value integer, p_own double precision) IS 'two_tower.price_of() of an int';

CREATE FUNCTION two_tower.price_of(p_value bigint, p_own double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.price_of(p_value bigint, p_own double precision) IS 'two_tower.price_of() of a bigint';

CREATE FUNCTION two_tower.price_of(p_value numeric, p_own double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.price_of(p_value numeric, p_own double precision) IS 'two_tower.price_of() of a numeric';

CREATE FUNCTION two_tower.price_of(p_value money, p_own double precision) RETURNS double precision
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.price_of(p_value money, p_own double precision) IS 'two_tower.price_of() of money';

CREATE FUNCTION two_tower.price_of_word(p_word text) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.price_of_word(p_word text) IS 'two_tower.price_of() of a number that is printed so; null for any other text';

CREATE FUNCTION two_tower.profile_keys(p_user_id uuid) RETURNS TABLE(kind text, key text)
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.profile_keys(p_user_id uuid) IS 'A row for each key of a user''s profile in the columns named by two_tower.set_profile_inputs(), by kind: profile_ and the column';

CREATE FUNCTION two_tower.profile_positions(p_user_ids uuid[], p_version text) RETURNS TABLE(user_id uuid, place integer)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION two_tower.profile_positions(p_user_ids uuid[], p_version text) IS 'The inputs of a version from the profiles of these users, each of them 1; none for a version that reads no profiles';

CREATE FUNCTION two_tower.purge_logs(p_keep interval DEFAULT '7 days'::interval) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.purge_logs(p_keep interval) IS 'Deletes job log entries older than p_keep, also those of pg_cron; creates the next daily partitions of impressions, and drops those that are older than the setting impressions_kept_days; counts';

CREATE FUNCTION two_tower.rank_by_vector(p_version text, p_vector extensions.halfvec, p_reason text, p_limit integer, p_excluded uuid[], p_filter two_tower.video_filter, p_diversity real, p_liked uuid[] DEFAULT '{}'::uuid[], p_weights real[] DEFAULT NULL::real[], p_length real DEFAULT NULL::real, p_least_likers integer DEFAULT 1) RETURNS TABLE(video_id uuid, score real, rank integer, reason text)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION two_tower.rank_by_vector(p_version text, p_vector extensions.halfvec, p_reason text, p_limit integer, p_excluded uuid[], p_filter two_tower.video_filter, p_diversity real, p_liked uuid[], p_weights real[], p_length real, p_least_likers integer) IS 'The visible videos that score best for a vector and likes, by nearest_videos(), with p_reason; if there are too few, or no vector, popular ones, which at least so many people like, and newest ones, whose score is the inverse of their rank';

CREATE FUNCTION two_tower.rank_popular(p_limit integer, p_days integer, p_filter two_tower.video_filter, p_excluded uuid[]) RETURNS TABLE(video_id uuid, score real, rank integer, reason text)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.rank_popular(p_limit integer, p_days integer, p_filter two_tower.video_filter, p_excluded uuid[]) IS 'Visible videos that most people liked within so many days, then by popularity, then the newest; likes of fewer people than the setting least_likers do not change the order';

CREATE FUNCTION two_tower.rank_session(p_liked uuid[], p_noped uuid[], p_limit integer, p_filter two_tower.video_filter, p_diversity real, p_excluded uuid[]) RETURNS TABLE(video_id uuid, score real, rank integer, reason text)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION two_tower.rank_session(p_liked uuid[], p_noped uuid[], p_limit integer, p_filter two_tower.video_filter, p_diversity real, p_excluded uuid[]) IS 'The best visible videos for somebody known only by these likes and nopes, without these and the excluded, with the reason of each: taste, popular or newest';

CREATE FUNCTION two_tower.rank_similar(p_video_id uuid, p_limit integer, p_filter two_tower.video_filter DEFAULT NULL::two_tower.video_filter, p_diversity real DEFAULT 0, p_excluded uuid[] DEFAULT '{}'::uuid[]) RETURNS TABLE(video_id uuid, score real, rank integer, reason text)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.rank_similar(p_video_id uuid, p_limit integer, p_filter two_tower.video_filter, p_diversity real, p_excluded uuid[]) IS 'The visible videos nearest to a video, without the excluded and those that do not pass the filter, with the reason of each: similar, popular or newest';

CREATE FUNCTION two_tower.rank_videos(p_user_id uuid, p_limit integer, p_filter two_tower.video_filter DEFAULT NULL::two_tower.video_filter, p_diversity real DEFAULT 0, p_excluded uuid[] DEFAULT '{}'::uuid[], p_version text DEFAULT NULL::text) RETURNS TABLE(video_id uuid, score real, rank integer, reason text)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION two_tower.rank_videos(p_user_id uuid, p_limit integer, p_filter two_tower.video_filter, p_diversity real, p_excluded uuid[], p_version text) IS 'The best visible videos for a user that the user has not decided on, without the excluded, with the reason of each: taste, popular or newest; by the version that serves the user, unless another is given';

CREATE FUNCTION two_tower.rate_interval(p_rate double precision, p_variance double precision, OUT low double precision, OUT high double precision) RETURNS record
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.rate_interval(p_rate double precision, p_variance double precision, OUT low double precision, OUT high double precision) IS 'The bounds of a rate by the variance of its estimate, which hold at all looks together; null where the variance is not known';

CREATE FUNCTION two_tower.rate_variance(p_users bigint, p_shown double precision, p_hits double precision, p_shown_squared double precision, p_hits_squared double precision, p_product double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.rate_variance(p_users bigint, p_shown double precision, p_hits double precision, p_shown_squared double precision, p_hits_squared double precision, p_product double precision) IS 'Variance of the rate hits / shown of so many users, from sums over them: of shown, of hits, of the squares of both, and of their products; null for fewer than two';

CREATE FUNCTION two_tower.reads_profiles(p_version text) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.reads_profiles(p_version text) IS 'Whether the user tower of a version reads profiles';

CREATE PROCEDURE two_tower.rebuild()
    LANGUAGE plpgsql;

COMMENT ON PROCEDURE two_tower.rebuild() IS 'Recomputes every feature row and every vector of the live versions, whatever the log says';

CREATE FUNCTION two_tower.rebuild_batch(p_kind text, p_after uuid DEFAULT NULL::uuid, p_limit integer DEFAULT 500) RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.rebuild_batch(p_kind text, p_after uuid, p_limit integer) IS 'Recomputes the next videos or users after p_after, whether or not their input has changed; the last id, or null at the end';

CREATE FUNCTION two_tower.recency_of(p_version text) RETURNS double precision
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.recency_of(p_version text) IS 'The exponent by which a version weighs decisions, from the newest: 0 where all count the same, or there is no such version';

CREATE FUNCTION two_tower.recommend_batch(user_ids uuid[], "limit" integer DEFAULT 20) RETURNS TABLE(user_id uuid, video_id uuid, score real, rank integer)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.recommend_batch(user_ids uuid[], "limit" integer) IS 'recommend_videos for many users at once, for mailings and evaluation';

CREATE PROCEDURE two_tower.refresh(IN max_batches integer DEFAULT NULL::integer, IN max_duration interval DEFAULT '00:00:50'::interval)
    LANGUAGE plpgsql;

COMMENT ON PROCEDURE two_tower.refresh(IN max_batches integer, IN max_duration interval) IS 'Drains the change log, committing batch by batch, until it is empty or a limit is reached; several may run side by side';

CREATE FUNCTION two_tower.refresh_batch(p_after uuid DEFAULT NULL::uuid, p_limit integer DEFAULT 1000, OUT result jsonb, OUT last_id uuid) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.refresh_batch(p_after uuid, p_limit integer, OUT result jsonb, OUT last_id uuid) IS 'Refreshes one batch of changed videos, or of collected users after p_after in id order, of p_limit or as many as there is room for; counts, and the last user looked at';

CREATE FUNCTION two_tower.refresh_now() RETURNS jsonb
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.refresh_now() IS 'Drains the change log within the caller''s transaction; counts, and what is left pending';

CREATE FUNCTION two_tower.refresh_set(p_kind text, p_ids uuid[]) RETURNS jsonb
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.refresh_set(p_kind text, p_ids uuid[]) IS 'Refreshes users or videos, setting aside those that fail; counts';

CREATE FUNCTION two_tower.refresh_step(INOUT state jsonb, OUT finished boolean, OUT result jsonb, OUT jobs jsonb, OUT failure text, OUT failure_code text) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.refresh_step(INOUT state jsonb, OUT finished boolean, OUT result jsonb, OUT jobs jsonb, OUT failure text, OUT failure_code text) IS 'One batch of a refresh, or one job after it, from and to the state that begin_refresh() gave. result is what the run has done so far, jobs what the jobs that ran have; failure says what went wrong, which is in the job log then';

CREATE FUNCTION two_tower.refresh_users(p_user_ids uuid[], p_versions text[] DEFAULT NULL::text[]) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.refresh_users(p_user_ids uuid[], p_versions text[]) IS 'Recomputes features and vectors of these users from their rows; the number of vectors written. The caller holds their locks, and the versions';

CREATE FUNCTION two_tower.refresh_videos(p_video_ids uuid[], p_versions text[] DEFAULT NULL::text[]) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.refresh_videos(p_video_ids uuid[], p_versions text[]) IS 'Recomputes the vectors and tastes of these videos from their rows; the number of vectors written. The caller holds their locks, and the versions';

CREATE FUNCTION two_tower.register_model(p_version text, p_user_tower bytea, p_item_tower bytea, p_feature_schema jsonb, p_normalizer jsonb, p_vocabularies jsonb, p_metrics jsonb, p_meta jsonb, p_weights bytea) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.register_model(p_version text, p_user_tower bytea, p_item_tower bytea, p_feature_schema jsonb, p_normalizer jsonb, p_vocabularies jsonb, p_metrics jsonb, p_meta jsonb, p_weights bytea) IS 'Registers a model as a candidate, once for equal content; 22023 names what is wrong with it, 23505 a version that is taken';

CREATE FUNCTION two_tower.reject_model(p_version text, p_reasons text[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.reject_model(p_version text, p_reasons text[]) IS 'Rejects a candidate for reasons that the gate does not know; they are kept';

CREATE FUNCTION two_tower.requeue_failures() RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.requeue_failures() IS 'Puts changes that were set aside back into the log when their retry is due; those of deleted users and videos at once';

CREATE FUNCTION two_tower.require_candidates(p_limit integer, p_diversity real) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.require_candidates(p_limit integer, p_diversity real) IS 'Raises 22023 for a diversity out of bounds, or for more candidates than list_for_caller() requests';

CREATE FUNCTION two_tower.require_diversity(p_diversity real) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.require_diversity(p_diversity real) IS 'Raises 22023 for a diversity out of bounds';

CREATE FUNCTION two_tower.require_model(p_version text) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.require_model(p_version text) IS 'The given version, or the active one for null; 55000 when none is active, P0002 when there is no such version';

CREATE FUNCTION two_tower.require_no_experiment(p_version text DEFAULT NULL::text) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.require_no_experiment(p_version text) IS 'Raises 55006 while an experiment runs, or one with this version';

CREATE FUNCTION two_tower.require_page(p_limit integer, p_offset integer DEFAULT 0, p_most integer DEFAULT 10000) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.require_page(p_limit integer, p_offset integer, p_most integer) IS 'Raises 22023 for a limit or an offset out of bounds';

CREATE FUNCTION two_tower.require_primary(p_routine text) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.require_primary(p_routine text) IS 'Raises 25006 on a standby, where a routine that writes cannot work';

CREATE FUNCTION two_tower.require_self(p_user_id uuid) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.require_self(p_user_id uuid) IS 'Raises 28000 when nobody is signed in, 42501 when the user is somebody else than the caller';

CREATE FUNCTION two_tower.require_session(p_liked uuid[], p_noped uuid[]) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.require_session(p_liked uuid[], p_noped uuid[]) IS 'Raises 22023 for more likes and nopes than a session may have';

CREATE FUNCTION two_tower.require_visible_when() RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.require_visible_when() IS 'Raises 55000 if the application''s policies hide videos and no condition says which may be shown';

CREATE FUNCTION two_tower.reserved_versions() RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.reserved_versions() IS 'Names, in small letters, that no model version may have in any spelling: what is published keeps other files under them';

CREATE FUNCTION two_tower.retire_model(p_version text, p_patience interval DEFAULT '00:01:00'::interval) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.retire_model(p_version text, p_patience interval) IS 'Drops the vectors, weights and neighbours of a staged or standby version without blocking readers, and keeps its record; 55P03 if it could not get its lock';

CREATE FUNCTION two_tower.retry_failures() RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.retry_failures() IS 'Puts all that is set aside back into the change log, for the next refresh, without waiting for retry_at; how many';

CREATE FUNCTION two_tower.rollback_model(p_version text DEFAULT NULL::text) RETURNS jsonb
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.rollback_model(p_version text) IS 'Activates the given version, or the standby version that served last, at once: its vectors are as fresh as the active one''s';

CREATE FUNCTION two_tower.sample_models(p_sample integer DEFAULT 10) RETURNS TABLE(model_version text, what text, value double precision, "limit" double precision, kept boolean, detail text, remedy text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.sample_models(p_sample integer) IS 'Measures each live version on a sample of users and videos: recall of its lists against exact search, and how far stored vectors are from computed ones; each with its limit, and with the remedy if it is exceeded';

CREATE FUNCTION two_tower.scale_content_vector() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.scale_content_vector() IS 'Trigger: scales a vector to length 1';

CREATE FUNCTION two_tower.schedule_jobs() RETURNS TABLE(job text, schedule text, command text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.schedule_jobs() IS 'Schedules the jobs in pg_cron: refresh every minute, users hourly, videos, popularity, verify and purge daily. A second call changes nothing';

CREATE FUNCTION two_tower.search_queries(p_version text, p_size integer) RETURNS TABLE(vector extensions.halfvec, length real, decided uuid[], liked uuid[], weights real[])
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.search_queries(p_version text, p_size integer) IS 'Index queries of a sample of users; before anybody has liked anything, of a sample of videos';

CREATE FUNCTION two_tower.search_videos(p_version text, p_vector extensions.halfvec, p_wanted integer, p_excluded uuid[], p_filter two_tower.video_filter, p_margin integer, p_near integer DEFAULT NULL::integer, OUT ids uuid[], OUT cosines real[], OUT among uuid[]) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_sort TO 'off'
    SET "hnsw.ef_search" TO '1000'
    SET "hnsw.max_scan_tuples" TO '50000'
    SET "hnsw.iterative_scan" TO 'off';

COMMENT ON FUNCTION two_tower.search_videos(p_version text, p_vector extensions.halfvec, p_wanted integer, p_excluded uuid[], p_filter two_tower.video_filter, p_margin integer, p_near integer, OUT ids uuid[], OUT cosines real[], OUT among uuid[]) IS 'The visible videos nearest to a vector, without the excluded and those that do not pass the filter, best first, and their cosines. p_margin: how many candidates the index search keeps beyond those wanted or near; 0 to compute every distance, null if it was not measured. p_near: how many of the excluded are likely to be near, all if null. among: all that pass the filter, if they are few and were collected';

CREATE FUNCTION two_tower.served_version(p_user_id uuid) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.served_version(p_user_id uuid) IS 'The model version that serves a user: during an experiment that of the user''s share, otherwise the active one; for null the active one';

CREATE FUNCTION two_tower.session_reasons(p_video_ids uuid[], p_liked uuid[]) RETURNS TABLE(video_id uuid, because_video_id uuid)
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.session_reasons(p_video_ids uuid[], p_liked uuid[]) IS 'For each of these videos, the one of these likes that adds most to its score in a list of recommend_from(); no row if none adds, or if the towers are not sums. At most 200 videos';

CREATE FUNCTION two_tower.set_eligible_when(condition text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.set_eligible_when(condition text) IS 'Sets which videos may be shown to whom, in any list, as a condition on public.videos v and viewer_id (null for a visitor); null removes it. Only for the owner. 22023 if it does not compile';

CREATE FUNCTION two_tower.set_filter(name text, condition text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.set_filter(name text, condition text) IS 'Defines a filter that clients name in the argument filters of every list, as a condition on public.videos v; null removes it. Only for the owner. 22023 if it does not compile';

CREATE FUNCTION two_tower.set_profile_inputs(columns text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.set_profile_inputs(columns text[]) IS 'Sets which columns of public.profiles user towers read, from the next training on; null or empty for none. A column of an array, or of JSON with one, has several keys. Only for the owner. 22023 for a name that is not a column';

CREATE FUNCTION two_tower.set_visible_when(condition text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.set_visible_when(condition text) IS 'Sets which videos may be shown in any list, as a condition on public.videos; only for the owner. 22023 if it does not compile';

CREATE FUNCTION two_tower.setting_error(p_name text, p_value jsonb, p_what text DEFAULT 'setting '::text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.setting_error(p_name text, p_value jsonb, p_what text) IS 'What is wrong with a value of a setting, in a sentence that says what is allowed; null if nothing is, or there is no such setting';

CREATE FUNCTION two_tower.shown_lately() RETURNS uuid[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.shown_lately() IS 'What the caller was shown within the setting shown_again_after_hours, the last 15000 times; the caller''s other pages wait until the end of the transaction';

CREATE FUNCTION two_tower.shown_outcomes(p_since timestamp with time zone, p_until timestamp with time zone DEFAULT 'infinity'::timestamp with time zone, p_experiment integer DEFAULT NULL::integer) RETURNS TABLE(model_version text, user_id uuid, video_id uuid, reason text, shown_at timestamp with time zone, label integer, decided_at timestamp with time zone)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.shown_outcomes(p_since timestamp with time zone, p_until timestamp with time zone, p_experiment integer) IS 'Each video that a user was shown between two times, when first, and what the user then decided: 1 like, 0 nope, -1 skip, null nothing. With the number of an experiment, what its two versions showed to the users whom they serve';

CREATE FUNCTION two_tower.shown_rates(p_days integer DEFAULT 30) RETURNS TABLE(model_version text, reason text, users bigint, shown bigint, likes bigint, nopes bigint, like_rate double precision, like_low double precision, like_high double precision, nope_rate double precision)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.shown_rates(p_days integer) IS 'What was shown in the last days, first to each user, by version and reason: how many users saw how many videos, how many of these they liked and noped afterwards, and the like rate with a confidence sequence of 95 %, null where too little is known';

CREATE FUNCTION two_tower.stage_given(p_version text, p_meta jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.stage_given(p_version text, p_meta jsonb) IS 'Begins a version of vectors that were computed elsewhere; add_given() adds to it, and close_given() makes it ready to be activated';

CREATE FUNCTION two_tower.stage_model(p_version text, p_force boolean DEFAULT false, p_measured jsonb DEFAULT NULL::jsonb, p_overrides jsonb DEFAULT NULL::jsonb) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.stage_model(p_version text, p_force boolean, p_measured jsonb, p_overrides jsonb) IS 'Stages a candidate whose metrics pass the gate, and rejects it otherwise; the new state and the reasons. p_measured, p_overrides: as two_tower.gate_metrics() takes them';

CREATE FUNCTION two_tower.stale_users(p_recent interval DEFAULT NULL::interval, p_min_likes integer DEFAULT 1, p_include_existing boolean DEFAULT false, p_limit integer DEFAULT NULL::integer) RETURNS SETOF uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.stale_users(p_recent interval, p_min_likes integer, p_include_existing boolean, p_limit integer) IS 'Users with at least p_min_likes likes, and a decision in the window if one is given, who lack a vector of a live version and have not opted out; with p_include_existing also those who have all; and, if one like is enough and no window is given, users with a profile key that a version knows';

CREATE FUNCTION two_tower.start_experiment(p_control text, p_challenger text, p_share double precision DEFAULT 0.1, p_force boolean DEFAULT false, p_measured jsonb DEFAULT NULL::jsonb, p_overrides jsonb DEFAULT NULL::jsonb) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.start_experiment(p_control text, p_challenger text, p_share double precision, p_force boolean, p_measured jsonb, p_overrides jsonb) IS 'Serves a share of the users, drawn by hash, by a backfilled challenger, and everybody else by the active version, until stop_experiment(). TT003 says why the challenger''s gate refuses; p_force overrules that, and is recorded. p_measured, p_overrides: as two_tower.gate_metrics() takes them';

CREATE FUNCTION two_tower.steer_list(p_question two_tower.list_question, p_limit integer) RETURNS TABLE(video_id uuid, score real, rank integer, reason text, model_version text, propensity real)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION two_tower.steer_list(p_question two_tower.list_question, p_limit integer) IS 'The result of list_candidates(), moved by promotions, freshness and exploration. The reason is what moved a video, the score is null if the video is not there for its score, and the propensity is the probability of its place';

CREATE FUNCTION two_tower.stop_experiment(p_winner text DEFAULT NULL::text) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.stop_experiment(p_winner text) IS 'Ends the experiment: the winner serves everybody, at once; without one the active version goes on. 55000 where none is running, 22023 for a version that is not in it';

CREATE FUNCTION two_tower.store_user_features(p_user_ids uuid[]) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.store_user_features(p_user_ids uuid[]) IS 'Makes user_features of these users what their rows say, touching only rows that differ; the number of rows touched';

CREATE FUNCTION two_tower.sum_input(p_version text, p_input extensions.sparsevec) RETURNS extensions.vector
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1';

COMMENT ON FUNCTION two_tower.sum_input(p_version text, p_input extensions.sparsevec) IS 'The user tower''s output for a raw input before it is scaled to length 1; null if the tower is not stored as rows';

CREATE FUNCTION two_tower.sum_users(p_user_ids uuid[], p_version text) RETURNS TABLE(user_id uuid, embedding extensions.halfvec, length real)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION two_tower.sum_users(p_user_ids uuid[], p_version text) IS 'Vectors of these users from the present rows, and the lengths of their sums before they are scaled to 1, for a version whose user tower is stored as rows; no row for a user without likes, unless the version knows a key of the profile';

CREATE FUNCTION two_tower.sync_user_embeddings(recent interval DEFAULT '01:00:00'::interval, min_likes integer DEFAULT 1) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.sync_user_embeddings(recent interval, min_likes integer) IS 'Marks users with a decision in the window and at least min_likes likes, then refreshes; counts';

CREATE FUNCTION two_tower.sync_video_embeddings() RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.sync_video_embeddings() IS 'Marks videos that lack a vector of any live version, then refreshes; counts';

CREATE FUNCTION two_tower.take_room(p_wait boolean) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '0';

COMMENT ON FUNCTION two_tower.take_room(p_wait boolean) IS 'How many users or videos this transaction may lock now; 0 if others have locked as many as allowed, unless it waits for one of them';

CREATE FUNCTION two_tower.text_of(p_value anyelement) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.text_of(p_value anyelement) IS 'How a value of any type prints, without the blanks that fill a text of fixed length';

CREATE FUNCTION two_tower.text_of(p_value anyelement, p_any integer) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.text_of(p_value anyelement, p_any integer) IS 'two_tower.text_of() of anything else';

CREATE FUNCTION two_tower.text_of(p_value character, p_own double precision) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.text_of(p_value character, p_own double precision) IS 'two_tower.text_of() of a text of fixed length, without the blanks that fill it';

CREATE FUNCTION two_tower.text_of(p_value text, p_own double precision) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.text_of(p_value text, p_own double precision) IS 'two_tower.text_of() of a text';

CREATE FUNCTION two_tower.text_of(p_value character varying, p_own double precision) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.text_of(p_value character varying, p_own double precision) IS 'two_tower.text_of() of a text of limited length';

CREATE FUNCTION two_tower.time_of(p_value anyelement) RETURNS timestamp with time zone
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.time_of(p_value anyelement) IS 'The time from a value of any type, or the nearer of 1900-01-01 and 2100-01-01 UTC; null if it has none';

CREATE FUNCTION two_tower.time_of(p_value anyelement, p_any integer) RETURNS timestamp with time zone
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.time_of(p_value anyelement, p_any integer) IS 'two_tower.time_of() of anything else';

CREATE FUNCTION two_tower.time_of(p_value date, p_own double precision) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.time_of(p_value date, p_own double precision) IS 'two_tower.time_of() of the beginning of a day in UTC';

CREATE FUNCTION two_tower.time_of(p_value timestamp without time zone, p_own double precision) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.time_of(p_value timestamp without time zone, p_own double precision) IS 'two_tower.time_of() of a time without a zone, which is taken for one in UTC';

CREATE FUNCTION two_tower.time_of(p_value timestamp with time zone, p_own double precision) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.time_of(p_value timestamp with time zone, p_own double precision) IS 'two_tower.time_of() of a moment';

CREATE FUNCTION two_tower.time_of_word(p_word text) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.time_of_word(p_word text) IS 'two_tower.time_of() of a date or time written as in ISO 8601, in UTC without a zone; null for any other text';

CREATE FUNCTION two_tower.times(p_vector extensions.vector, p_factor real) RETURNS extensions.vector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.times(p_vector extensions.vector, p_factor real) IS 'A vector, each entry of it multiplied by a number';

CREATE FUNCTION two_tower.training_set(p_min_stars real DEFAULT 4, p_max_negative_stars real DEFAULT 2) RETURNS TABLE(user_id uuid, video_id uuid, label smallint, created_at timestamp with time zone, weight real)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.training_set(p_min_stars real, p_max_negative_stars real) IS 'Labelled pairs to train on, from decisions and star reviews: 1 liked, 0 disliked, -1 known and neither; with their weights; without users who opted out of training, and of each account no more than the setting most_decisions';

CREATE FUNCTION two_tower.try_job(p_job text, p_if_due boolean DEFAULT false, OUT ran boolean, OUT result jsonb, OUT error text) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.try_job(p_job text, p_if_due boolean, OUT ran boolean, OUT result jsonb, OUT error text) IS 'Runs a job for a caller that must not fail because of it: returns its result, or the error, which the job log keeps. With p_if_due only if it is due and nobody else runs it';

CREATE FUNCTION two_tower.try_lock_changes(p_kind text, p_ids uuid[]) RETURNS uuid[]
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.try_lock_changes(p_kind text, p_ids uuid[]) IS 'Those of these that no other transaction refreshes, now locked';

CREATE FUNCTION two_tower.tune_search(p_version text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.tune_search(p_version text) IS 'Finds, with the lists of a sample of users, the narrowest search that contains the share search_min_recall of the exact best videos. Stores with the version how many candidates it needs beyond those requested or excluded; 0: every distance is computed; null: too few videos to need measuring. P0002: no such version';

CREATE FUNCTION two_tower.unit_vector(p_vector real[]) RETURNS real[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.unit_vector(p_vector real[]) IS 'The same direction, of length 1; 22023 if there is none';

CREATE FUNCTION two_tower.unknown_decisions() RETURNS text[]
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.unknown_decisions() IS 'Common values of decision_type, as of the last analyze, other than like, nope and skip, which count as nothing; null for none';

CREATE FUNCTION two_tower.unschedule_jobs() RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.unschedule_jobs() IS 'Removes the jobs from pg_cron; how many there were';

CREATE FUNCTION two_tower.update_popularity() RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.update_popularity() IS 'Counts likes per video, also those of reviews, each halved per half-life of age relative to the newest, and how many people liked each video lately; adds the last counts of other shards (two_tower.shard_popularity); rows of popularity changed';

CREATE FUNCTION two_tower.user_inputs(p_user_ids uuid[], p_recency double precision) RETURNS TABLE(user_id uuid, segment text, key text, value double precision)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.user_inputs(p_user_ids uuid[], p_recency double precision) IS 'The user tower''s inputs: a row for each input that is not zero, with decisions weighted by a version''s exponent';

CREATE FUNCTION two_tower.user_payloads(p_user_ids uuid[]) RETURNS TABLE(user_id uuid, features jsonb)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1';

COMMENT ON FUNCTION two_tower.user_payloads(p_user_ids uuid[]) IS 'The payload of get_user_embedding_features, for many users at once, weighted by each decision''s own weight and the version that serves the user, which it names';

CREATE FUNCTION two_tower.user_vector(p_taste extensions.vector) RETURNS extensions.halfvec
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.user_vector(p_taste extensions.vector) IS 'The vector of a user, of unit length, from the sum over the history';

CREATE FUNCTION two_tower.users_by_profile(p_version text, p_after uuid DEFAULT NULL::uuid, p_limit integer DEFAULT NULL::integer, p_lacking boolean DEFAULT false) RETURNS SETOF uuid
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.users_by_profile(p_version text, p_after uuid, p_limit integer, p_lacking boolean) IS 'Users without a like who should have a vector of a version because of their profile, after p_after in id order; with p_lacking those who have none yet, and are not set aside';

CREATE FUNCTION two_tower.vector_of(p_user_id uuid, p_version text, OUT embedding extensions.halfvec, OUT length real) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan';

COMMENT ON FUNCTION two_tower.vector_of(p_user_id uuid, p_version text, OUT embedding extensions.halfvec, OUT length real) IS 'The vector of a user, stored or, where no refresh has seen the user yet, computed on the spot, and the length of its sum; null for nobody';

CREATE FUNCTION two_tower.verify_batch(p_kind text, p_after uuid DEFAULT NULL::uuid, p_limit integer DEFAULT 500, p_ids uuid[] DEFAULT NULL::uuid[], OUT last_id uuid, OUT seen integer, OUT features uuid[], OUT vectors uuid[], OUT tastes uuid[]) RETURNS record
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.verify_batch(p_kind text, p_after uuid, p_limit integer, p_ids uuid[], OUT last_id uuid, OUT seen integer, OUT features uuid[], OUT vectors uuid[], OUT tastes uuid[]) IS 'Compares stored values of the next users or videos after p_after, or of p_ids, with those computed from their rows now: who differs in features, in the vector of a version, in tastes; the last one compared (null at the end), and how many were compared';

CREATE FUNCTION two_tower.verify_sample(p_count integer DEFAULT 300) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.verify_sample(p_count integer) IS 'Compares stored values of a random sample of p_count users and p_count videos with their rows; counts, also in the job log';

CREATE FUNCTION two_tower.video_numbers(p_video_ids uuid[]) RETURNS TABLE(video_id uuid, price double precision, duration_seconds integer, released_days integer)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.video_numbers(p_video_ids uuid[]) IS 'The numbers that the item tower reads of each video; no row for a video that does not exist';

CREATE FUNCTION two_tower.video_payloads(p_video_ids uuid[]) RETURNS TABLE(video_id uuid, features jsonb)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1';

COMMENT ON FUNCTION two_tower.video_payloads(p_video_ids uuid[]) IS 'The payload of get_item_embedding_features, for many videos at once';

CREATE FUNCTION two_tower.video_vector(p_place extensions.vector) RETURNS extensions.halfvec
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.video_vector(p_place extensions.vector) IS 'The vector of a video, of unit length, from its place';

CREATE FUNCTION two_tower.was_filtered(p_list_id uuid) RETURNS boolean
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.was_filtered(p_list_id uuid) IS 'Whether a list was requested with filters, from its id by two_tower.list_id()';

CREATE FUNCTION two_tower.weight_of(p_value anyelement) RETURNS real
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.weight_of(p_value anyelement) IS 'A decision''s own weight from a value of any type, from 0.01 to 10; 1 if it is not a number';

CREATE FUNCTION two_tower.weight_of(p_value anyelement, p_any integer) RETURNS real
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.weight_of(p_value anyelement, p_any integer) IS 'two_tower.weight_of() of anything else';

CREATE FUNCTION two_tower.weight_of(p_value real, p_own double precision) RETURNS real
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.weight_of(p_value real, p_own double precision) IS 'two_tower.weight_of() of a number in single precision';

CREATE FUNCTION two_tower.weight_of(p_value double precision, p_own double precision) RETURNS real
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.weight_of(p_value double precision, p_own double precision) IS 'two_tower.weight_of() of a number in double precision';

CREATE FUNCTION two_tower.weight_of(p_value numeric, p_own double precision) RETURNS real
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.weight_of(p_value numeric, p_own double precision) IS 'two_tower.weight_of() of a numeric';

CREATE FUNCTION two_tower.weight_of_word(p_word text) RETURNS real
    LANGUAGE sql IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.weight_of_word(p_word text) IS 'two_tower.weight_of() of a number that is printed so; 1 for any other text';

CREATE FUNCTION two_tower.weighted_decisions(p_user_id uuid, p_recency double precision) RETURNS TABLE(video_id uuid, liked boolean, place integer, given real, weight real)
    LANGUAGE sql STABLE PARALLEL SAFE;

COMMENT ON FUNCTION two_tower.weighted_decisions(p_user_id uuid, p_recency double precision) IS 'The likes and nopes of a user, with the place of each from the newest, its own weight, and its weight with a version''s exponent';

CREATE FUNCTION two_tower.with_few_likers(p_video_ids uuid[]) RETURNS uuid[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.with_few_likers(p_video_ids uuid[]) IS 'Those of these videos that fewer people like than the setting least_likers, by the last count of popularity: lists for visitors reveal nothing learnt from their likers';

CREATE FUNCTION two_tower.words_of(p_text text) RETURNS SETOF text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET standard_conforming_strings TO 'on';

COMMENT ON FUNCTION two_tower.words_of(p_text text) IS 'The words of a text, each once, in lower case; pairs of characters in scripts without spaces between words';

CREATE FUNCTION two_tower.write_user_vectors(p_user_ids uuid[], p_versions text[]) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp';

COMMENT ON FUNCTION two_tower.write_user_vectors(p_user_ids uuid[], p_versions text[]) IS 'Recomputes the vectors of these users from their rows; the number of vectors written. The caller holds their locks';

CREATE TABLE auth.users (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.performers (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    name text NOT NULL
);

CREATE TABLE public.profiles (
    user_id uuid NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.tags (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    name text NOT NULL
);

CREATE TABLE two_tower.user_embeddings (
    model_version text NOT NULL,
    user_id uuid NOT NULL,
    embedding extensions.halfvec(128) NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    length real
)
PARTITION BY LIST (model_version);

COMMENT ON TABLE two_tower.user_embeddings IS 'User vectors, one partition per model version';

CREATE VIEW two_tower.active_user_embeddings WITH (security_invoker='true');

COMMENT ON VIEW two_tower.active_user_embeddings IS 'User vectors of the version that serves the reader; users see only their own';

CREATE VIEW public.user_embeddings WITH (security_invoker='true');

COMMENT ON VIEW public.user_embeddings IS 'User vectors of the version that serves the reader; users see only their own';

CREATE TABLE public.user_video_decisions (
    user_id uuid DEFAULT auth.uid() NOT NULL,
    video_id uuid NOT NULL,
    decision_type text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    weight real DEFAULT 1 NOT NULL,
    CONSTRAINT user_video_decisions_decision_type_check CHECK ((decision_type = ANY (ARRAY['like'::text, 'nope'::text, 'skip'::text]))),
    CONSTRAINT user_video_decisions_weight_check CHECK (((weight >= (0.01)::real) AND (weight <= (10)::double precision)))
);

CREATE TABLE two_tower.video_embeddings (
    model_version text NOT NULL,
    video_id uuid NOT NULL,
    embedding extensions.halfvec(128) NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    placed boolean DEFAULT true NOT NULL
)
PARTITION BY LIST (model_version);

COMMENT ON TABLE two_tower.video_embeddings IS 'Video vectors, one partition per model version';

CREATE VIEW two_tower.active_video_embeddings WITH (security_invoker='true');

COMMENT ON VIEW two_tower.active_video_embeddings IS 'Video vectors of the version that serves the reader, of videos that the reader may see; placed is false if nothing is known about a video';

CREATE VIEW public.video_embeddings WITH (security_invoker='true');

COMMENT ON VIEW public.video_embeddings IS 'Video vectors of the version that serves the reader, of videos that the reader may see; placed is false if nothing is known about a video';

CREATE TABLE public.video_performers (
    video_id uuid NOT NULL,
    performer_id uuid NOT NULL
);

CREATE TABLE public.video_tags (
    video_id uuid NOT NULL,
    tag_id uuid NOT NULL
);

CREATE TABLE public.videos (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    product_url text NOT NULL,
    title text DEFAULT ''::text NOT NULL,
    description text,
    maker text,
    label text,
    series text,
    source text,
    thumbnail_url text,
    image_urls text[] DEFAULT '{}'::text[] NOT NULL,
    price numeric,
    duration_seconds integer,
    distribution_started_at timestamp with time zone,
    product_released_at timestamp with time zone,
    published_at timestamp with time zone DEFAULT now(),
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT videos_duration_seconds_check CHECK ((duration_seconds >= 0)),
    CONSTRAINT videos_price_check CHECK (((price >= (0)::numeric) AND (price < '1000000000000'::numeric)))
);

CREATE TABLE two_tower.backfill_changes (
    model_version text NOT NULL,
    video_id uuid NOT NULL,
    reaches_users boolean NOT NULL
);

COMMENT ON TABLE two_tower.backfill_changes IS 'Changed videos that were refreshed while a version''s videos were being embedded';

CREATE TABLE two_tower.catalogue_rule (
    one boolean DEFAULT true NOT NULL,
    visible_when text DEFAULT 'two_tower.time_of(published_at) <= now()'::text NOT NULL,
    stated boolean DEFAULT false NOT NULL,
    eligible_when text,
    CONSTRAINT catalogue_rule_one_check CHECK (one)
);

COMMENT ON TABLE two_tower.catalogue_rule IS 'Which videos are shown, and to whom, as set by two_tower.set_visible_when() and two_tower.set_eligible_when()';

CREATE TABLE two_tower.change_failures (
    kind text NOT NULL,
    id uuid NOT NULL,
    sqlstate text NOT NULL,
    error text NOT NULL,
    attempts integer DEFAULT 1 NOT NULL,
    failed_at timestamp with time zone DEFAULT now() NOT NULL,
    retry_at timestamp with time zone NOT NULL,
    CONSTRAINT change_failures_kind_check CHECK ((kind = ANY (ARRAY['user'::text, 'video'::text])))
);

COMMENT ON TABLE two_tower.change_failures IS 'Users and videos that are set aside because their refresh failed';

CREATE TABLE two_tower.content_vectors (
    video_id uuid NOT NULL,
    encoder text NOT NULL,
    vector real[] NOT NULL,
    CONSTRAINT content_vectors_encoder_check CHECK ((encoder ~ '^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$'::text))
);

COMMENT ON TABLE two_tower.content_vectors IS 'Vectors of videos by encoders of images or texts, of length 1: inputs that place a video, from the next training on';

COMMENT ON COLUMN two_tower.content_vectors.encoder IS 'Vectors of the same encoder can be compared; a version reads those of the encoders that it was trained on';

CREATE TABLE two_tower.model_versions (
    version text NOT NULL,
    number integer NOT NULL,
    state text DEFAULT 'candidate'::text NOT NULL,
    schema_version integer NOT NULL,
    user_dim integer NOT NULL,
    item_dim integer NOT NULL,
    user_engine text NOT NULL,
    item_engine text NOT NULL,
    registered_at timestamp with time zone DEFAULT now() NOT NULL,
    backfilled_at timestamp with time zone,
    activated_at timestamp with time zone,
    attached_at timestamp with time zone,
    with_neighbours integer DEFAULT 0 NOT NULL,
    search_margin integer,
    forced boolean DEFAULT false NOT NULL,
    CONSTRAINT model_versions_item_dim_check CHECK ((item_dim > 0)),
    CONSTRAINT model_versions_item_engine_check CHECK ((item_engine = ANY (ARRAY['sql'::text, 'onnxruntime'::text, 'given'::text]))),
    CONSTRAINT model_versions_search_margin_check CHECK ((search_margin >= 0)),
    CONSTRAINT model_versions_state_check CHECK ((state = ANY (ARRAY['candidate'::text, 'rejected'::text, 'staged'::text, 'active'::text, 'standby'::text, 'retired'::text]))),
    CONSTRAINT model_versions_user_dim_check CHECK ((user_dim > 0)),
    CONSTRAINT model_versions_user_engine_check CHECK ((user_engine = ANY (ARRAY['sql'::text, 'onnxruntime'::text, 'given'::text]))),
    CONSTRAINT model_versions_version_check CHECK ((version ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'::text))
);

COMMENT ON TABLE two_tower.model_versions IS 'Every registered model version and its state; at most one is active';

CREATE VIEW two_tower.coverage WITH (security_invoker='true');

COMMENT ON VIEW two_tower.coverage IS 'Each version that refreshes write, with its vectors, and with what is missing: not in the change log, and not set aside. users: those with a like (liking_users), and those with a profile that the version reads';

CREATE TABLE two_tower.created_objects (
    kind text NOT NULL,
    name text NOT NULL,
    CONSTRAINT created_objects_kind_check CHECK ((kind = ANY (ARRAY['schema'::text, 'extension'::text, 'table'::text, 'view'::text, 'function'::text, 'routine'::text, 'renamed relation'::text, 'renamed routine'::text])))
);

COMMENT ON TABLE two_tower.created_objects IS 'What the migrations created or renamed, as opposed to found; going back undoes these and no others';

CREATE TABLE two_tower.experiments (
    id integer NOT NULL,
    control text NOT NULL,
    challenger text NOT NULL,
    share double precision NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    stopped_at timestamp with time zone,
    winner text,
    role text DEFAULT SESSION_USER NOT NULL,
    CONSTRAINT experiments_check CHECK ((challenger <> control)),
    CONSTRAINT experiments_check1 CHECK (((winner = control) OR (winner = challenger))),
    CONSTRAINT experiments_share_check CHECK (((share > (0)::double precision) AND (share < (1)::double precision)))
);

COMMENT ON TABLE two_tower.experiments IS 'Experiments on users, running and past: written by two_tower.start_experiment() and stop_experiment()';

COMMENT ON COLUMN two_tower.experiments.share IS 'Share of the users whom the challenger serves';

COMMENT ON COLUMN two_tower.experiments.stopped_at IS 'Null while it runs';

COMMENT ON COLUMN two_tower.experiments.winner IS 'The version that serves everybody since; null if none was chosen as better';

ALTER TABLE two_tower.experiments ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME two_tower.experiments_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE two_tower.exploration_pool (
    video_id uuid NOT NULL,
    shown bigint NOT NULL,
    drawn_on date NOT NULL
);

COMMENT ON TABLE two_tower.exploration_pool IS 'Videos that few users have been shown; exploration shows some of them today';

CREATE VIEW two_tower.failed_changes WITH (security_invoker='true');

COMMENT ON VIEW two_tower.failed_changes IS 'Users and videos set aside because refreshing them failed';

CREATE TABLE two_tower.impression_users (
    user_id uuid NOT NULL
);

COMMENT ON TABLE two_tower.impression_users IS 'Users with impressions, which are deleted with this row, and this row with the user';

CREATE TABLE two_tower.installation (
    one boolean DEFAULT true NOT NULL,
    program text NOT NULL,
    logic_sha256 text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT installation_one_check CHECK (one)
);

COMMENT ON TABLE two_tower.installation IS 'Which program applied the routines, and the sha256 of their sources';

CREATE TABLE two_tower.job_runs (
    id bigint NOT NULL,
    job text NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    result jsonb,
    error text
);

COMMENT ON TABLE two_tower.job_runs IS 'Runs of the jobs, read through two_tower.job_log';

CREATE VIEW two_tower.job_log WITH (security_invoker='true');

COMMENT ON VIEW two_tower.job_log IS 'Runs of the jobs, with what each did or why it failed';

ALTER TABLE two_tower.job_runs ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME two_tower.job_runs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE two_tower.user_change_log (
    user_id uuid NOT NULL,
    logged_at timestamp with time zone DEFAULT now() NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000');

ALTER TABLE ONLY two_tower.user_change_log REPLICA IDENTITY FULL;

COMMENT ON TABLE two_tower.user_change_log IS 'Users of changed decisions, appended by triggers';

CREATE TABLE two_tower.user_changes (
    user_id uuid NOT NULL,
    id bigint NOT NULL,
    logged_at timestamp with time zone DEFAULT now() NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000');

COMMENT ON TABLE two_tower.user_changes IS 'Users to refresh: from user_change_log, likers of changed videos, and marked users';

CREATE VIEW two_tower.pending_users WITH (security_invoker='true');

COMMENT ON VIEW two_tower.pending_users IS 'Users waiting for a refresh, a row for each change, and since when';

CREATE TABLE two_tower.video_changes (
    video_id uuid NOT NULL,
    id bigint NOT NULL,
    logged_at timestamp with time zone DEFAULT now() NOT NULL,
    reaches_users boolean DEFAULT true NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000');

COMMENT ON TABLE two_tower.video_changes IS 'Videos whose inputs changed since they were last refreshed';

CREATE VIEW two_tower.jobs WITH (security_invoker='true');

COMMENT ON VIEW two_tower.jobs IS 'The jobs, from the job log and from pg_cron. scheduled: by pg_cron, null where there is none; failing: the last run to end failed';

CREATE TABLE two_tower.model_documents (
    model_version text NOT NULL,
    feature_schema jsonb NOT NULL,
    normalizer jsonb NOT NULL,
    metrics jsonb NOT NULL,
    meta jsonb NOT NULL
);

COMMENT ON TABLE two_tower.model_documents IS 'Feature schema, normalizer, metrics and description of each version';

CREATE TABLE two_tower.model_events (
    id bigint NOT NULL,
    model_version text NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    role text DEFAULT SESSION_USER NOT NULL,
    from_state text,
    to_state text NOT NULL,
    forced boolean DEFAULT false NOT NULL,
    report jsonb
);

COMMENT ON TABLE two_tower.model_events IS 'Every change of state of a model version, with the findings of its gate and whether they were overruled';

ALTER TABLE two_tower.model_events ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME two_tower.model_events_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE two_tower.model_files (
    model_version text NOT NULL,
    name text NOT NULL,
    content bytea NOT NULL,
    sha256 text GENERATED ALWAYS AS (encode(sha256(content), 'hex'::text)) STORED NOT NULL,
    CONSTRAINT model_files_name_check CHECK ((name = ANY (ARRAY['user_tower.onnx'::text, 'item_tower.onnx'::text, 'weights.safetensors'::text])))
);
ALTER TABLE ONLY two_tower.model_files ALTER COLUMN content SET STORAGE EXTERNAL;

COMMENT ON TABLE two_tower.model_files IS 'The towers (ONNX) and weights (safetensors) of each version';

CREATE TABLE two_tower.model_inputs (
    model_version text NOT NULL,
    tower text NOT NULL,
    segment text NOT NULL,
    key text NOT NULL,
    "position" integer NOT NULL
);

COMMENT ON TABLE two_tower.model_inputs IS 'The encoder''s lookup table: the position of each key in each segment, by version';

CREATE TABLE two_tower.model_segments (
    model_version text NOT NULL,
    tower text NOT NULL,
    segment text NOT NULL,
    vocabulary text,
    "offset" integer NOT NULL,
    size integer NOT NULL,
    CONSTRAINT model_segments_offset_check CHECK (("offset" >= 0)),
    CONSTRAINT model_segments_size_check CHECK ((size >= 0)),
    CONSTRAINT model_segments_tower_check CHECK ((tower = ANY (ARRAY['user'::text, 'item'::text])))
);

COMMENT ON TABLE two_tower.model_segments IS 'Segments of the inputs of each tower, by version';

ALTER TABLE two_tower.model_versions ALTER COLUMN number ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME two_tower.model_versions_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE two_tower.model_weights (
    model_version text NOT NULL,
    tower text NOT NULL,
    part text NOT NULL,
    "position" integer NOT NULL,
    weight extensions.vector NOT NULL,
    CONSTRAINT model_weights_tower_check CHECK ((tower = ANY (ARRAY['user'::text, 'item'::text])))
);

COMMENT ON TABLE two_tower.model_weights IS 'The weights of both towers as rows, by version: the engine sql computes vectors from them';

CREATE VIEW two_tower.models WITH (security_invoker='true');

COMMENT ON VIEW two_tower.models IS 'Every registered version with its state, its metrics, and the share of its vectors that is there';

CREATE TABLE two_tower.named_filters (
    name text NOT NULL,
    condition text NOT NULL,
    CONSTRAINT named_filters_name_check CHECK ((name ~ '^[a-z][a-z0-9_]{0,62}$'::text))
);

COMMENT ON TABLE two_tower.named_filters IS 'Filters of lists by name, defined by two_tower.set_filter()';

CREATE TABLE two_tower.neighbour_lists (
    model_version text NOT NULL,
    video_id uuid NOT NULL,
    neighbour_ids uuid[] NOT NULL,
    weights real[] NOT NULL,
    CONSTRAINT neighbour_lists_check CHECK ((cardinality(neighbour_ids) = cardinality(weights)))
)
WITH (toast_tuple_target='8160');
ALTER TABLE ONLY two_tower.neighbour_lists ALTER COLUMN neighbour_ids SET STORAGE EXTERNAL;
ALTER TABLE ONLY two_tower.neighbour_lists ALTER COLUMN weights SET STORAGE EXTERNAL;

COMMENT ON TABLE two_tower.neighbour_lists IS 'What a like of a video adds to the scores of which others, by version; two_tower.video_neighbours has it by pairs';

CREATE TABLE two_tower.settings (
    name text NOT NULL,
    value jsonb NOT NULL,
    description text NOT NULL
);

COMMENT ON TABLE two_tower.settings IS 'Settings that operators may change, each with its meaning';

CREATE VIEW two_tower.status WITH (security_invoker='true');

COMMENT ON VIEW two_tower.status IS 'How fresh and how complete the vectors are. lag: age of the oldest waiting change; vectors_per_second: over the last 20 refreshes that wrote any; mixed_versions: vectors that the reader sees and that are not of the version that serves it, always 0; follows_likes: false if the vectors of the active version were uploaded (two-tower model upload-vectors), so likes do not change them';

CREATE VIEW two_tower.problems WITH (security_invoker='true');

COMMENT ON VIEW two_tower.problems IS 'Every present problem, with its remedy; no rows if all is well';

CREATE TABLE two_tower.profile_inputs (
    name text NOT NULL,
    CONSTRAINT profile_inputs_name_check CHECK ((name ~ '^[a-z][a-z0-9_]{0,54}$'::text))
);

COMMENT ON TABLE two_tower.profile_inputs IS 'Columns of public.profiles that user towers may read, as set by two_tower.set_profile_inputs()';

CREATE TABLE two_tower.promotions (
    id bigint NOT NULL,
    kind text NOT NULL,
    video_id uuid,
    videos jsonb,
    segment jsonb,
    strength real DEFAULT 2 NOT NULL,
    rank integer,
    starts_at timestamp with time zone DEFAULT now() NOT NULL,
    ends_at timestamp with time zone,
    note text,
    CONSTRAINT promotions_boost_bury_or_pin CHECK ((kind = ANY (ARRAY['boost'::text, 'bury'::text, 'pin'::text]))),
    CONSTRAINT promotions_end_after_they_start CHECK ((ends_at > starts_at)),
    CONSTRAINT promotions_one_video_or_a_filter CHECK (((video_id IS NULL) <> (videos IS NULL))),
    CONSTRAINT promotions_pins_have_a_video_and_a_rank CHECK (
CASE kind
    WHEN 'pin'::text THEN ((video_id IS NOT NULL) AND (rank IS NOT NULL))
    ELSE (rank IS NULL)
END),
    CONSTRAINT promotions_rank_from_1_to_200 CHECK (((rank >= 1) AND (rank <= 200))),
    CONSTRAINT promotions_strength_above_1_up_to_10 CHECK (((strength > (1)::double precision) AND (strength <= (10)::double precision)))
);

COMMENT ON TABLE two_tower.promotions IS 'Which videos lists move up (boost) or down (bury), or place at a rank (pin), and from when to when';

COMMENT ON COLUMN two_tower.promotions.videos IS 'A filter of the promoted videos, instead of a single one';

COMMENT ON COLUMN two_tower.promotions.segment IS 'Only for lists that start from a video that passes this filter, because its user likes it or asks about it; null for everybody';

COMMENT ON COLUMN two_tower.promotions.strength IS 'Factor by which ranks are divided (boost) or multiplied (bury); of several promotions of a video, the strongest counts';

ALTER TABLE two_tower.promotions ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME two_tower.promotions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE two_tower.reviews (
    reviewer_id uuid NOT NULL,
    video_id uuid NOT NULL,
    stars real NOT NULL,
    created_at timestamp with time zone,
    user_id uuid,
    CONSTRAINT reviews_check CHECK ((user_id = reviewer_id)),
    CONSTRAINT reviews_stars_check CHECK (((stars >= (0)::double precision) AND (stars <= (5)::double precision)))
);

COMMENT ON TABLE two_tower.reviews IS 'Star reviews to train on, by reviewers who need not be users';

COMMENT ON COLUMN two_tower.reviews.user_id IS 'The reviewer, if that is a user, with whom the review is deleted';

CREATE TABLE two_tower.shard_popularity (
    shard text NOT NULL,
    days integer NOT NULL,
    video_id uuid NOT NULL,
    score double precision NOT NULL,
    likers integer NOT NULL,
    as_of timestamp with time zone NOT NULL,
    counted_at timestamp with time zone NOT NULL,
    CONSTRAINT shard_popularity_days_check CHECK ((days = ANY (ARRAY[0, 1, 7, 30])))
);

COMMENT ON TABLE two_tower.shard_popularity IS 'Likes of users of the other shards, counted there by two_tower.own_popularity(); two_tower.update_popularity() adds them';

CREATE TABLE two_tower.shards (
    name text NOT NULL,
    model_version text,
    asked_at timestamp with time zone
);

COMMENT ON TABLE two_tower.shards IS 'The shards known to two-tower shards, and the model version that each served when it was last asked';

COMMENT ON COLUMN two_tower.shards.asked_at IS 'Null if it was never asked';

CREATE VIEW two_tower.sizes WITH (security_invoker='true');

COMMENT ON VIEW two_tower.sizes IS 'Bytes of each table, TOAST included, and of its indexes; vectors by model version';

ALTER TABLE two_tower.user_changes ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME two_tower.user_changes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE two_tower.user_choices (
    user_id uuid NOT NULL,
    personalised boolean DEFAULT true NOT NULL,
    trained_on boolean DEFAULT true NOT NULL,
    never_makers text[] DEFAULT '{}'::text[] NOT NULL,
    never_tag_ids uuid[] DEFAULT '{}'::uuid[] NOT NULL,
    never_performer_ids uuid[] DEFAULT '{}'::uuid[] NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE two_tower.user_choices IS 'Users'' choices about themselves, written by set_choices()';

CREATE VIEW two_tower.video_attributes WITH (security_invoker='true');

COMMENT ON VIEW two_tower.video_attributes IS 'A row for each attribute key of a video, by kind: tag, performer, maker, label, series, source, title_word, description_word';

ALTER TABLE two_tower.video_changes ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME two_tower.video_changes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE VIEW two_tower.video_neighbours WITH (security_invoker='true');

COMMENT ON VIEW two_tower.video_neighbours IS 'What a like of video_id adds to the score of neighbour_id, by version: two_tower.neighbour_lists, which lists read, a row for each pair';

CREATE TABLE two_tower.video_popularity (
    video_id uuid NOT NULL,
    score double precision NOT NULL,
    likers integer NOT NULL
);

COMMENT ON TABLE two_tower.video_popularity IS 'Time-decayed likes per video, and the number of its likers, written by two_tower.update_popularity()';

CREATE TABLE two_tower.video_tastes (
    model_version text NOT NULL,
    video_id uuid NOT NULL,
    liked extensions.vector(127),
    noped extensions.vector(127)
)
PARTITION BY LIST (model_version);

COMMENT ON TABLE two_tower.video_tastes IS 'What a like and a nope of each video adds to a user, one partition per model version; null if nothing';

CREATE TABLE two_tower.video_trends (
    days integer NOT NULL,
    video_id uuid NOT NULL,
    likers integer NOT NULL,
    CONSTRAINT video_trends_days_check CHECK ((days = ANY (ARRAY[1, 7, 30])))
);

COMMENT ON TABLE two_tower.video_trends IS 'How many people liked each video within the last so many days, written by two_tower.update_popularity()';

CREATE VIEW two_tower.visible_videos;

COMMENT ON VIEW two_tower.visible_videos IS 'The videos that may be shown; two_tower.set_visible_when() sets the condition. To drop or retype a column that the condition names: select two_tower.set_visible_when(''true''), change the column, and set the condition again. Do not drop this view';

CREATE TABLE two_tower.vocabularies (
    model_version text NOT NULL,
    vocabulary text NOT NULL,
    key text NOT NULL,
    index integer NOT NULL,
    CONSTRAINT vocabularies_index_check CHECK ((index >= 0))
);

COMMENT ON TABLE two_tower.vocabularies IS 'Keys of each vocabulary and their index, by version';

ALTER TABLE ONLY auth.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.performers
    ADD CONSTRAINT performers_name_key UNIQUE (name);

ALTER TABLE ONLY public.performers
    ADD CONSTRAINT performers_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.profiles
    ADD CONSTRAINT profiles_pkey PRIMARY KEY (user_id);

ALTER TABLE ONLY public.tags
    ADD CONSTRAINT tags_name_key UNIQUE (name);

ALTER TABLE ONLY public.tags
    ADD CONSTRAINT tags_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.user_features
    ADD CONSTRAINT user_features_pkey PRIMARY KEY (user_id);

ALTER TABLE ONLY public.user_video_decisions
    ADD CONSTRAINT user_video_decisions_pkey PRIMARY KEY (user_id, video_id) INCLUDE (decision_type, created_at, weight);

ALTER TABLE ONLY public.video_performers
    ADD CONSTRAINT video_performers_pkey PRIMARY KEY (video_id, performer_id);

ALTER TABLE ONLY public.video_tags
    ADD CONSTRAINT video_tags_pkey PRIMARY KEY (video_id, tag_id);

ALTER TABLE ONLY public.videos
    ADD CONSTRAINT videos_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.videos
    ADD CONSTRAINT videos_product_url_key UNIQUE (product_url);

ALTER TABLE ONLY two_tower.backfill_changes
    ADD CONSTRAINT backfill_changes_pkey PRIMARY KEY (model_version, video_id);

ALTER TABLE ONLY two_tower.catalogue_rule
    ADD CONSTRAINT catalogue_rule_pkey PRIMARY KEY (one);

ALTER TABLE ONLY two_tower.change_failures
    ADD CONSTRAINT change_failures_pkey PRIMARY KEY (kind, id);

ALTER TABLE ONLY two_tower.content_vectors
    ADD CONSTRAINT content_vectors_pkey PRIMARY KEY (video_id, encoder);

ALTER TABLE ONLY two_tower.created_objects
    ADD CONSTRAINT created_objects_pkey PRIMARY KEY (kind, name);

ALTER TABLE ONLY two_tower.experiments
    ADD CONSTRAINT experiments_pkey PRIMARY KEY (id);

ALTER TABLE ONLY two_tower.exploration_pool
    ADD CONSTRAINT exploration_pool_pkey PRIMARY KEY (video_id);

ALTER TABLE ONLY two_tower.impression_users
    ADD CONSTRAINT impression_users_pkey PRIMARY KEY (user_id);

ALTER TABLE ONLY two_tower.impressions
    ADD CONSTRAINT impressions_pkey PRIMARY KEY (user_id, shown_at, list_id, video_id);

ALTER TABLE ONLY two_tower.installation
    ADD CONSTRAINT installation_pkey PRIMARY KEY (one);

ALTER TABLE ONLY two_tower.job_runs
    ADD CONSTRAINT job_runs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY two_tower.model_documents
    ADD CONSTRAINT model_documents_pkey PRIMARY KEY (model_version);

ALTER TABLE ONLY two_tower.model_events
    ADD CONSTRAINT model_events_pkey PRIMARY KEY (id);

ALTER TABLE ONLY two_tower.model_files
    ADD CONSTRAINT model_files_pkey PRIMARY KEY (model_version, name);

ALTER TABLE ONLY two_tower.model_inputs
    ADD CONSTRAINT model_inputs_pkey PRIMARY KEY (model_version, tower, segment, key);

ALTER TABLE ONLY two_tower.model_segments
    ADD CONSTRAINT model_segments_pkey PRIMARY KEY (model_version, tower, segment);

ALTER TABLE ONLY two_tower.model_versions
    ADD CONSTRAINT model_versions_number_key UNIQUE (number);

ALTER TABLE ONLY two_tower.model_versions
    ADD CONSTRAINT model_versions_pkey PRIMARY KEY (version);

ALTER TABLE ONLY two_tower.model_weights
    ADD CONSTRAINT model_weights_pkey PRIMARY KEY (model_version, tower, part, "position");

ALTER TABLE ONLY two_tower.named_filters
    ADD CONSTRAINT named_filters_pkey PRIMARY KEY (name);

ALTER TABLE ONLY two_tower.neighbour_lists
    ADD CONSTRAINT neighbour_lists_pkey PRIMARY KEY (video_id, model_version);

ALTER TABLE ONLY two_tower.profile_inputs
    ADD CONSTRAINT profile_inputs_pkey PRIMARY KEY (name);

ALTER TABLE ONLY two_tower.promotions
    ADD CONSTRAINT promotions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY two_tower.reviews
    ADD CONSTRAINT reviews_pkey PRIMARY KEY (reviewer_id, video_id);

ALTER TABLE ONLY two_tower.settings
    ADD CONSTRAINT settings_pkey PRIMARY KEY (name);

ALTER TABLE ONLY two_tower.shard_popularity
    ADD CONSTRAINT shard_popularity_pkey PRIMARY KEY (shard, days, video_id);

ALTER TABLE ONLY two_tower.shards
    ADD CONSTRAINT shards_pkey PRIMARY KEY (name);

ALTER TABLE ONLY two_tower.user_changes
    ADD CONSTRAINT user_changes_pkey PRIMARY KEY (user_id, id);

ALTER TABLE ONLY two_tower.user_choices
    ADD CONSTRAINT user_choices_pkey PRIMARY KEY (user_id);

ALTER TABLE ONLY two_tower.user_embeddings
    ADD CONSTRAINT user_embeddings_pkey PRIMARY KEY (user_id, model_version);

ALTER TABLE ONLY two_tower.video_changes
    ADD CONSTRAINT video_changes_pkey PRIMARY KEY (video_id, id);

ALTER TABLE ONLY two_tower.video_embeddings
    ADD CONSTRAINT video_embeddings_pkey PRIMARY KEY (video_id, model_version);

ALTER TABLE ONLY two_tower.video_popularity
    ADD CONSTRAINT video_popularity_pkey PRIMARY KEY (video_id);

ALTER TABLE ONLY two_tower.video_tastes
    ADD CONSTRAINT video_tastes_pkey PRIMARY KEY (video_id, model_version);

ALTER TABLE ONLY two_tower.video_trends
    ADD CONSTRAINT video_trends_pkey PRIMARY KEY (days, video_id);

ALTER TABLE ONLY two_tower.vocabularies
    ADD CONSTRAINT vocabularies_pkey PRIMARY KEY (model_version, vocabulary, key);

CREATE INDEX user_video_decisions_video_id_idx ON public.user_video_decisions USING btree (video_id);

CREATE INDEX video_performers_performer_id_idx ON public.video_performers USING btree (performer_id, video_id);

CREATE INDEX video_tags_tag_id_idx ON public.video_tags USING btree (tag_id, video_id);

CREATE INDEX videos_distribution_started_at_idx ON public.videos USING btree (distribution_started_at);

CREATE INDEX videos_duration_seconds_idx ON public.videos USING btree (duration_seconds) INCLUDE (id);

CREATE INDEX videos_maker_idx ON public.videos USING hash (maker);

CREATE INDEX videos_price_idx ON public.videos USING btree (price) INCLUDE (id);

CREATE INDEX videos_product_released_at_idx ON public.videos USING btree (product_released_at);

CREATE INDEX videos_published_at_idx ON public.videos USING btree (published_at DESC, id);

CREATE INDEX videos_series_idx ON public.videos USING hash (series);

CREATE INDEX content_vectors_encoder_idx ON two_tower.content_vectors USING btree (encoder);

CREATE UNIQUE INDEX experiments_one_runs ON two_tower.experiments USING btree (((stopped_at IS NULL))) WHERE (stopped_at IS NULL);

CREATE INDEX job_runs_job_idx ON two_tower.job_runs USING btree (job, started_at DESC);

CREATE INDEX model_events_model_version_idx ON two_tower.model_events USING btree (model_version, id);

CREATE UNIQUE INDEX model_versions_one_active ON two_tower.model_versions USING btree (state) WHERE (state = 'active'::text);

CREATE INDEX reviews_user_id_idx ON two_tower.reviews USING btree (user_id);

CREATE INDEX reviews_video_id_idx ON two_tower.reviews USING btree (video_id);

CREATE INDEX video_popularity_score_idx ON two_tower.video_popularity USING btree (score DESC, video_id);

CREATE INDEX video_trends_likers_idx ON two_tower.video_trends USING btree (days, likers DESC, video_id);

CREATE TRIGGER two_tower_delete AFTER DELETE ON public.user_video_decisions REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION two_tower.log_deleted_decisions();

CREATE TRIGGER two_tower_delete AFTER DELETE ON public.video_performers REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION two_tower.log_deleted_attributes();

CREATE TRIGGER two_tower_delete AFTER DELETE ON public.video_tags REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION two_tower.log_deleted_attributes();

CREATE TRIGGER two_tower_delete AFTER DELETE ON public.videos REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION two_tower.log_deleted_videos();

CREATE TRIGGER two_tower_insert AFTER INSERT ON public.user_video_decisions REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION two_tower.log_inserted_decisions();

CREATE TRIGGER two_tower_insert AFTER INSERT ON public.video_performers REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION two_tower.log_inserted_attributes();

CREATE TRIGGER two_tower_insert AFTER INSERT ON public.video_tags REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION two_tower.log_inserted_attributes();

CREATE TRIGGER two_tower_insert AFTER INSERT ON public.videos REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION two_tower.log_inserted_videos();

CREATE TRIGGER two_tower_row AFTER INSERT OR DELETE OR UPDATE ON public.user_video_decisions FOR EACH ROW EXECUTE FUNCTION two_tower.log_row('user_id');

ALTER TABLE public.user_video_decisions ENABLE REPLICA TRIGGER two_tower_row;

CREATE TRIGGER two_tower_row AFTER INSERT OR DELETE OR UPDATE ON public.video_performers FOR EACH ROW EXECUTE FUNCTION two_tower.log_row('video_id');

ALTER TABLE public.video_performers ENABLE REPLICA TRIGGER two_tower_row;

CREATE TRIGGER two_tower_row AFTER INSERT OR DELETE OR UPDATE ON public.video_tags FOR EACH ROW EXECUTE FUNCTION two_tower.log_row('video_id');

ALTER TABLE public.video_tags ENABLE REPLICA TRIGGER two_tower_row;

CREATE TRIGGER two_tower_row AFTER INSERT OR DELETE OR UPDATE ON public.videos FOR EACH ROW EXECUTE FUNCTION two_tower.log_row('id');

ALTER TABLE public.videos ENABLE REPLICA TRIGGER two_tower_row;

CREATE TRIGGER two_tower_truncate AFTER TRUNCATE ON public.user_video_decisions FOR EACH STATEMENT EXECUTE FUNCTION two_tower.log_truncated_decisions();

ALTER TABLE public.user_video_decisions ENABLE ALWAYS TRIGGER two_tower_truncate;

CREATE TRIGGER two_tower_truncate AFTER TRUNCATE ON public.video_performers FOR EACH STATEMENT EXECUTE FUNCTION two_tower.log_truncated_videos();

ALTER TABLE public.video_performers ENABLE ALWAYS TRIGGER two_tower_truncate;

CREATE TRIGGER two_tower_truncate AFTER TRUNCATE ON public.video_tags FOR EACH STATEMENT EXECUTE FUNCTION two_tower.log_truncated_videos();

ALTER TABLE public.video_tags ENABLE ALWAYS TRIGGER two_tower_truncate;

CREATE TRIGGER two_tower_truncate AFTER TRUNCATE ON public.videos FOR EACH STATEMENT EXECUTE FUNCTION two_tower.log_truncated_videos();

ALTER TABLE public.videos ENABLE ALWAYS TRIGGER two_tower_truncate;

CREATE TRIGGER two_tower_update AFTER UPDATE ON public.user_video_decisions REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION two_tower.log_updated_decisions();

CREATE TRIGGER two_tower_update AFTER UPDATE ON public.video_performers REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION two_tower.log_updated_attributes();

CREATE TRIGGER two_tower_update AFTER UPDATE ON public.video_tags REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION two_tower.log_updated_attributes();

CREATE TRIGGER two_tower_update AFTER UPDATE ON public.videos REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION two_tower.log_updated_videos();

CREATE TRIGGER two_tower_check BEFORE INSERT OR UPDATE ON two_tower.promotions FOR EACH ROW EXECUTE FUNCTION two_tower.check_promotion();

CREATE TRIGGER two_tower_check BEFORE INSERT OR DELETE OR UPDATE ON two_tower.settings FOR EACH ROW EXECUTE FUNCTION two_tower.check_setting();

CREATE TRIGGER two_tower_forget AFTER DELETE ON two_tower.impression_users REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION two_tower.forget_impressions();

CREATE TRIGGER two_tower_frozen BEFORE DELETE OR UPDATE ON two_tower.model_documents FOR EACH ROW EXECUTE FUNCTION two_tower.model_part_frozen();

CREATE TRIGGER two_tower_frozen BEFORE DELETE OR UPDATE ON two_tower.model_files FOR EACH ROW EXECUTE FUNCTION two_tower.model_part_frozen();

CREATE TRIGGER two_tower_frozen BEFORE DELETE OR UPDATE ON two_tower.model_inputs FOR EACH ROW EXECUTE FUNCTION two_tower.model_part_frozen();

CREATE TRIGGER two_tower_frozen BEFORE DELETE OR UPDATE ON two_tower.model_segments FOR EACH ROW EXECUTE FUNCTION two_tower.model_part_frozen();

CREATE TRIGGER two_tower_frozen BEFORE DELETE OR UPDATE ON two_tower.vocabularies FOR EACH ROW EXECUTE FUNCTION two_tower.model_part_frozen();

CREATE TRIGGER two_tower_no_truncate BEFORE TRUNCATE ON two_tower.model_versions FOR EACH STATEMENT EXECUTE FUNCTION two_tower.model_transition();

CREATE TRIGGER two_tower_row AFTER INSERT OR DELETE OR UPDATE ON two_tower.content_vectors FOR EACH ROW EXECUTE FUNCTION two_tower.log_content_vector();

ALTER TABLE two_tower.content_vectors ENABLE ALWAYS TRIGGER two_tower_row;

CREATE TRIGGER two_tower_row AFTER INSERT OR DELETE OR UPDATE ON two_tower.user_choices FOR EACH ROW EXECUTE FUNCTION two_tower.log_row('user_id');

ALTER TABLE two_tower.user_choices ENABLE ALWAYS TRIGGER two_tower_row;

CREATE TRIGGER two_tower_scale BEFORE INSERT OR UPDATE ON two_tower.content_vectors FOR EACH ROW EXECUTE FUNCTION two_tower.scale_content_vector();

CREATE TRIGGER two_tower_sealed_delete AFTER DELETE ON two_tower.model_weights REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION two_tower.guard_weights();

CREATE TRIGGER two_tower_sealed_delete AFTER DELETE ON two_tower.neighbour_lists REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION two_tower.guard_weights();

CREATE TRIGGER two_tower_sealed_insert AFTER INSERT ON two_tower.model_weights REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION two_tower.guard_weights();

CREATE TRIGGER two_tower_sealed_insert AFTER INSERT ON two_tower.neighbour_lists REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION two_tower.guard_weights();

CREATE TRIGGER two_tower_sealed_truncate BEFORE TRUNCATE ON two_tower.model_weights FOR EACH STATEMENT EXECUTE FUNCTION two_tower.guard_all_weights();

CREATE TRIGGER two_tower_sealed_truncate BEFORE TRUNCATE ON two_tower.neighbour_lists FOR EACH STATEMENT EXECUTE FUNCTION two_tower.guard_all_weights();

CREATE TRIGGER two_tower_sealed_update AFTER UPDATE ON two_tower.model_weights REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION two_tower.guard_weights();

CREATE TRIGGER two_tower_sealed_update AFTER UPDATE ON two_tower.neighbour_lists REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION two_tower.guard_weights();

CREATE TRIGGER two_tower_sealed_update_to AFTER UPDATE ON two_tower.model_weights REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION two_tower.guard_weights();

CREATE TRIGGER two_tower_sealed_update_to AFTER UPDATE ON two_tower.neighbour_lists REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION two_tower.guard_weights();

CREATE TRIGGER two_tower_transition BEFORE INSERT OR DELETE OR UPDATE ON two_tower.model_versions FOR EACH ROW EXECUTE FUNCTION two_tower.model_transition();

CREATE TRIGGER two_tower_truncate AFTER TRUNCATE ON two_tower.content_vectors FOR EACH STATEMENT EXECUTE FUNCTION two_tower.log_truncated_videos();

ALTER TABLE two_tower.content_vectors ENABLE ALWAYS TRIGGER two_tower_truncate;

ALTER TABLE ONLY public.profiles
    ADD CONSTRAINT profiles_user_id_fkey FOREIGN KEY (user_id) REFERENCES auth.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.user_features
    ADD CONSTRAINT user_features_user_id_fkey FOREIGN KEY (user_id) REFERENCES auth.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.user_video_decisions
    ADD CONSTRAINT user_video_decisions_user_id_fkey FOREIGN KEY (user_id) REFERENCES auth.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.user_video_decisions
    ADD CONSTRAINT user_video_decisions_video_id_fkey FOREIGN KEY (video_id) REFERENCES public.videos(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.video_performers
    ADD CONSTRAINT video_performers_performer_id_fkey FOREIGN KEY (performer_id) REFERENCES public.performers(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.video_performers
    ADD CONSTRAINT video_performers_video_id_fkey FOREIGN KEY (video_id) REFERENCES public.videos(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.video_tags
    ADD CONSTRAINT video_tags_tag_id_fkey FOREIGN KEY (tag_id) REFERENCES public.tags(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.video_tags
    ADD CONSTRAINT video_tags_video_id_fkey FOREIGN KEY (video_id) REFERENCES public.videos(id) ON DELETE CASCADE;

ALTER TABLE ONLY two_tower.impression_users
    ADD CONSTRAINT impression_users_user_id_fkey FOREIGN KEY (user_id) REFERENCES auth.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY two_tower.model_documents
    ADD CONSTRAINT model_documents_model_version_fkey FOREIGN KEY (model_version) REFERENCES two_tower.model_versions(version) ON DELETE CASCADE;

ALTER TABLE ONLY two_tower.model_files
    ADD CONSTRAINT model_files_model_version_fkey FOREIGN KEY (model_version) REFERENCES two_tower.model_versions(version) ON DELETE CASCADE;

ALTER TABLE ONLY two_tower.model_inputs
    ADD CONSTRAINT model_inputs_model_version_fkey FOREIGN KEY (model_version) REFERENCES two_tower.model_versions(version) ON DELETE CASCADE;

ALTER TABLE ONLY two_tower.model_segments
    ADD CONSTRAINT model_segments_model_version_fkey FOREIGN KEY (model_version) REFERENCES two_tower.model_versions(version) ON DELETE CASCADE;

ALTER TABLE ONLY two_tower.reviews
    ADD CONSTRAINT reviews_user_id_fkey FOREIGN KEY (user_id) REFERENCES auth.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY two_tower.shard_popularity
    ADD CONSTRAINT shard_popularity_shard_fkey FOREIGN KEY (shard) REFERENCES two_tower.shards(name) ON DELETE CASCADE;

ALTER TABLE ONLY two_tower.user_choices
    ADD CONSTRAINT user_choices_user_id_fkey FOREIGN KEY (user_id) REFERENCES auth.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY two_tower.vocabularies
    ADD CONSTRAINT vocabularies_model_version_fkey FOREIGN KEY (model_version) REFERENCES two_tower.model_versions(version) ON DELETE CASCADE;

ALTER TABLE auth.users ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.performers ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.profiles ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.tags ENABLE ROW LEVEL SECURITY;

CREATE POLICY two_tower_catalogue ON public.performers FOR SELECT TO anon, authenticated USING (true);

CREATE POLICY two_tower_catalogue ON public.tags FOR SELECT TO anon, authenticated USING (true);

CREATE POLICY two_tower_catalogue ON public.video_performers FOR SELECT TO anon, authenticated USING (true);

CREATE POLICY two_tower_catalogue ON public.video_tags FOR SELECT TO anon, authenticated USING (true);

CREATE POLICY two_tower_catalogue ON public.videos FOR SELECT TO anon, authenticated USING (true);

CREATE POLICY two_tower_own ON public.profiles FOR SELECT TO authenticated USING ((user_id = ( SELECT auth.uid() AS uid)));

CREATE POLICY two_tower_own ON public.user_features FOR SELECT TO authenticated USING ((user_id = ( SELECT auth.uid() AS uid)));

CREATE POLICY two_tower_own ON public.user_video_decisions TO authenticated USING ((user_id = ( SELECT auth.uid() AS uid))) WITH CHECK ((user_id = ( SELECT auth.uid() AS uid)));

CREATE POLICY two_tower_viewer ON public.performers FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON public.profiles FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON public.tags FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON public.user_features FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON public.user_video_decisions FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON public.video_performers FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON public.video_tags FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON public.videos FOR SELECT TO two_tower_viewer USING (true);

ALTER TABLE public.user_features ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.user_video_decisions ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.video_performers ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.video_tags ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.videos ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.backfill_changes ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.catalogue_rule ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.change_failures ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.content_vectors ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.created_objects ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.experiments ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.exploration_pool ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.impression_users ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.impressions ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.installation ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.job_runs ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.model_documents ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.model_events ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.model_files ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.model_inputs ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.model_segments ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.model_versions ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.model_weights ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.named_filters ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.neighbour_lists ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.profile_inputs ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.promotions ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.reviews ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.settings ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.shard_popularity ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.shards ENABLE ROW LEVEL SECURITY;

CREATE POLICY two_tower_active ON two_tower.model_versions FOR SELECT TO authenticated USING ((state = 'active'::text));

CREATE POLICY two_tower_catalogue ON two_tower.video_embeddings FOR SELECT TO authenticated USING (( SELECT true
   FROM public.videos v
  WHERE (v.id = video_embeddings.video_id)));

CREATE POLICY two_tower_own ON two_tower.user_embeddings FOR SELECT TO authenticated USING ((user_id = ( SELECT auth.uid() AS uid)));

CREATE POLICY two_tower_payload ON two_tower.content_vectors FOR SELECT TO authenticated USING ((EXISTS ( SELECT
   FROM public.videos v
  WHERE (v.id = content_vectors.video_id))));

CREATE POLICY two_tower_viewer ON two_tower.change_failures FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON two_tower.experiments FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON two_tower.exploration_pool FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON two_tower.impressions FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON two_tower.job_runs FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON two_tower.model_documents FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON two_tower.model_events FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON two_tower.model_versions FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON two_tower.neighbour_lists FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON two_tower.profile_inputs FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON two_tower.promotions FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON two_tower.settings FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON two_tower.user_change_log FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON two_tower.user_changes FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON two_tower.user_embeddings FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON two_tower.video_changes FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON two_tower.video_embeddings FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON two_tower.video_popularity FOR SELECT TO two_tower_viewer USING (true);

CREATE POLICY two_tower_viewer ON two_tower.video_trends FOR SELECT TO two_tower_viewer USING (true);

ALTER TABLE two_tower.user_change_log ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.user_changes ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.user_choices ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.user_embeddings ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.video_changes ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.video_embeddings ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.video_popularity ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.video_tastes ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.video_trends ENABLE ROW LEVEL SECURITY;

ALTER TABLE two_tower.vocabularies ENABLE ROW LEVEL SECURITY;
