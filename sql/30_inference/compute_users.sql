drop function if exists two_tower.compute_users(uuid[], text[], boolean, boolean);
drop function if exists two_tower.compute_users(uuid[], text[], boolean, boolean, boolean);
-- From rows to features and vectors in one go, counted and evaluated in numpy and onnxruntime. What it counts is defined by
-- count_user_features() and encode_users(), whose results it equals bit for bit.
create or replace function two_tower.compute_users(
    p_user_ids uuid[], p_versions text[], p_force boolean default false, p_features boolean default true,
    p_cached boolean default true
)
returns table (
    user_id uuid, model_version text,
    liked_tags jsonb, liked_performers jsonb, liked_makers jsonb, liked_labels jsonb, liked_series jsonb, liked_sources jsonb,
    liked_video_ids bytea, noped_video_ids bytea, like_count int, nope_count int, price_sum double precision, priced_count int,
    input bytea, input_hash bytea, image bytea
)
language plpython3u stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
as $plpython$
-- include plpython/inference.py
-- include plpython/model_files.py
-- include plpython/histories.py
if not p_user_ids:
    return []
numpy, onnxruntime = load_libraries(plpy)
engine = lambda version, entries: evaluate(
    plpy, GD, numpy, onnxruntime, version, "user", lambda width: sparse_pieces(numpy, width, entries)
)
return list(compute_users(plpy, GD, numpy, engine, p_user_ids, p_versions, p_force, p_features, p_cached))
$plpython$;

comment on function two_tower.compute_users(uuid[], text[], boolean, boolean, boolean) is
'A row of features for each of these distinct users with a like or nope; and a row per version for each with a like: the packed '
'input, its hash, and the bytes of the vector unless the stored one was made of the same input';
