"""Features in SQL: the answers of the RPCs, who may read them, and that SQL counts exactly as the trainer (I1, I2)."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest
from psycopg import errors

from conftest import Connect, Connection
from two_tower.errors import UserError
from two_tower.features import LIKE, NOPE, VOCABULARIES, FeatureSchema, TrainingData, user_counts
from two_tower.trainer import dataset
from world_fixtures import (
    EPOCH,
    NOBODY,
    Client,
    World,
    column,
    load,
    make_world,
    one,
    random_model,
    refresh,
    register,
    rpc,
    tiny_model,
)

pytestmark = pytest.mark.world

WORLD = make_world()

USER_KEYS = {
    "schema_version", "liked_tags", "liked_performers", "liked_makers", "liked_labels", "liked_series", "liked_sources",
    "liked_video_ids", "noped_video_ids", "like_count", "nope_count", "like_ratio", "like_count_30d",
    "positive_ratio_30d",
    "price_mean", "price_median", "days_since_last_like", "account_age_days", "hour_of_day_mean",
    # In addition to the documented list: the parts of price_mean, since the encoder reads sums, and the version.
    "price_sum", "priced_count", "model_version",
}  # fmt: skip
ITEM_KEYS = {
    "schema_version", "tags", "performers", "source", "maker", "label", "series", "price", "duration_seconds",
    "released_days", "title_words", "description_words", "content_vectors",
}  # fmt: skip


@pytest.fixture
def clean_db(database: Any) -> Any:
    """A migrated database without a world."""
    connection = psycopg.connect(database(), autocommit=True)
    yield connection
    connection.close()


# -------------------------------------------------------------------------------------------- I2: one encoder


def dense(text: str) -> np.ndarray:
    """A sparsevec's text as float32."""
    entries, width = text.removeprefix("{").split("}/")
    row = np.zeros(int(width), dtype=np.float32)
    for entry in filter(None, entries.split(",")):
        position, value = entry.split(":")
        row[int(position) - 1] = float(value)
    return row


def encoded_users(db: Connection, version: str) -> dict[str, np.ndarray]:
    rows = db.execute(
        """select e.user_id::text, e.input::text from two_tower.encode_users(array(select id from auth.users), %s) e""",
        (version,),
    )
    return {user: dense(text) for user, text in rows}


def encoded_videos(db: Connection, version: str) -> dict[str, np.ndarray]:
    rows = db.execute(
        """select e.video_id::text, e.input::text
        from two_tower.encode_videos(array(select id from public.videos), %s) e""",
        (version,),
    )
    return {video: dense(text) for video, text in rows}


def assert_one_encoder(db: Connection, data: TrainingData, version: str) -> None:
    # SQL sums weights in double precision.
    liked, noped = (data.matrix(label, recency=data.schema.recency).astype(np.float64) for label in (LIKE, NOPE))
    expected = user_counts(data.schema, data.item_counts, liked, noped, data.profile).toarray()
    found = encoded_users(db, version)
    for user, row in zip(data.user_ids, expected, strict=True):
        np.testing.assert_array_equal(found.pop(user, np.zeros_like(row)), row, err_msg=f"user {user}")
    assert not found, "SQL encodes users whom the trainer does not know"
    videos = encoded_videos(db, version)
    for video, row in zip(data.item_ids, data.item_counts.toarray(), strict=True):
        np.testing.assert_array_equal(videos.pop(video), row, err_msg=f"video {video}")
    assert not videos


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_i2_sql_encodes_every_user_and_video_as_the_trainer_counts_them(seed: int, clean_db: Connection) -> None:
    load(clean_db, make_world(120, 40, seed))
    data = dataset.read(clean_db)
    register(clean_db, random_model(data.schema))
    assert_one_encoder(clean_db, data, "v1")


def test_i2_keys_beyond_a_small_vocabulary_are_left_out_by_both(db: Connection) -> None:
    options = dataset.DatasetOptions(
        max_tag_features=4,
        max_performer_features=3,
        max_video_features=25,
        max_category_features=1,
        max_word_features=2,
    )
    data = dataset.read(db, options)
    assert [len(data.schema.vocabularies[name]) for name in VOCABULARIES] == [4, 3, 1, 1, 1, 1, 2, 2, 0, 25]
    register(db, random_model(data.schema), "small")
    assert_one_encoder(db, data, "small")


def test_i2_a_model_older_than_the_catalogue_ignores_what_it_does_not_know(db: Connection) -> None:
    """New tags, videos and makers have no inputs; everything else counts as before."""
    before = encoded_users(db, "v1")[str(WORLD.one_like)]
    db.execute("insert into public.tags (id, name) values (%s, 'new')", (NOBODY,))
    (liked,) = WORLD.of(WORLD.one_like, "like")
    db.execute("insert into public.video_tags values (%s, %s)", (liked, NOBODY))
    np.testing.assert_array_equal(encoded_users(db, "v1")[str(WORLD.one_like)], before)
    db.execute(
        "insert into public.videos (id, product_url, title, maker) values (%s, 'u', 'unheard', 'new maker')", (NOBODY,)
    )
    assert encoded_videos(db, "v1")[str(NOBODY)].sum() == 0


def test_i2_reviews_are_training_data_and_no_features(db: Connection) -> None:
    before = encoded_users(db, "v1")
    db.execute("insert into two_tower.reviews select user_id, %s, 5 from public.profiles", (WORLD.videos[7],))
    assert dataset.read(db).n_users >= len(before)
    for user, row in encoded_users(db, "v1").items():
        np.testing.assert_array_equal(row, before[user])


@pytest.mark.parametrize("setting", ["extra_float_digits = -15", "datestyle = 'SQL, DMY'", "timezone = 'Asia/Tokyo'"])
def test_i1_features_do_not_depend_on_session_settings(setting: str, db: Connection, connect: Connect) -> None:
    other = connect()
    other.execute(f"set {setting}".encode())
    for kind, table in (("user", "auth.users"), ("video", "public.videos")):
        ids = f"array(select id from {table})"
        payloads = f"select string_agg(p::text, ' ' order by p.{kind}_id) from two_tower.{kind}_payloads({ids}) p"
        assert one(other, payloads) == one(db, payloads)
        inputs = f"""select md5(string_agg(extensions.sparsevec_send(e.input)::text, ' ' order by e.{kind}_id))
            from two_tower.encode_{kind}s({ids}, 'v1') e"""
        assert one(other, inputs) == one(db, inputs)


def test_i1_embeddings_do_not_depend_on_session_settings(db: Connection, connect: Connect) -> None:
    other = connect()
    other.execute("set extra_float_digits = -15; set timezone = 'Asia/Tokyo'; set datestyle = 'German'")
    query = """select md5(string_agg(e.embedding::text, '' order by e.{0}_id))
        from two_tower.embed_{0}s(array(select id from {1})) e"""
    for kind, table in (("user", "auth.users"), ("video", "public.videos")):
        assert one(other, query.format(kind, table)) == one(db, query.format(kind, table))


# -------------------------------------------------------------------------------------------- unusual catalogues


def test_empty_vocabularies_work_in_the_database_and_the_towers(clean_db: Connection) -> None:
    """Vocabularies of size zero, in the database and in the towers."""
    load(clean_db, WORLD)
    clean_db.execute(
        """truncate public.video_performers;
        update public.videos set label = null, series = '', maker = null, source = null"""
    )
    model = tiny_model(clean_db)
    empty = [name for name in VOCABULARIES if not model.schema.vocabularies[name]]
    assert empty == ["performer", "maker", "label", "series", "source", "content_vector"]
    assert_one_encoder(clean_db, dataset.read(clean_db), "v1")
    assert one(clean_db, "select count(*) from public.video_embeddings") == len(WORLD.videos)
    assert one(clean_db, "select count(*) from two_tower.recommend_batch(array[%s]::uuid[], 20)", WORLD.usual) == 20


def test_a_catalogue_without_any_attributes_works(clean_db: Connection) -> None:
    load(clean_db, WORLD)
    clean_db.execute(
        """truncate public.video_performers, public.video_tags;
        update public.videos set label = null, series = null, maker = null, source = null, price = null,
            duration_seconds = null, product_released_at = null"""
    )
    model = random_model(FeatureSchema(dict.fromkeys(VOCABULARIES, ())))
    assert (model.schema.user_dim, model.schema.item_dim) == (4, 3)
    register(clean_db, model, "bare")
    clean_db.execute("call two_tower.refresh()")
    clean_db.execute("call two_tower.backfill_model('bare')")
    clean_db.execute("select two_tower.activate_model('bare')")
    assert one(clean_db, "select count(distinct embedding::text) from public.video_embeddings") == 1
    assert one(clean_db, "select count(*) from two_tower.recommend_batch(array[%s]::uuid[], 20)", WORLD.usual) == 20


def test_routines_answer_in_an_empty_database(clean_db: Connection) -> None:
    with pytest.raises(UserError, match="no videos"):
        dataset.read(clean_db)
    tiny_model(clean_db)
    refresh(clean_db)
    clean_db.execute("call two_tower.rebuild()")
    assert clean_db.execute("select * from public.get_user_embedding_feature_batch()").fetchall() == []
    assert clean_db.execute("select * from public.get_item_embedding_feature_batch()").fetchall() == []
    assert clean_db.execute("select * from two_tower.embed_users('{}')").fetchall() == []
    assert clean_db.execute("select * from two_tower.embed_videos(null)").fetchall() == []
    assert clean_db.execute("select * from two_tower.recommend_batch(array[%s]::uuid[], 5)", (NOBODY,)).fetchall() == []
    assert one(clean_db, "select users_with_likes from two_tower.status") == 0


def test_reading_the_training_data_evaluates_it_once(db: Connection) -> None:
    """With tens of millions of decisions, each evaluation takes as long as the first."""
    db.execute("set track_functions = 'all'")
    dataset.read(db)
    db.execute("select pg_stat_force_next_flush()")
    assert one(db, "select calls from pg_stat_user_functions where funcname = 'training_set'") == 1


def test_videos_without_likes_are_no_training_set(clean_db: Connection) -> None:
    load(clean_db, WORLD)
    clean_db.execute("delete from public.user_video_decisions where decision_type = 'like'")
    with pytest.raises(UserError, match="no likes"):
        dataset.read(clean_db)


# -------------------------------------------------------------------------------------------- payloads


def payload(client: Client, user: UUID) -> dict[str, Any]:
    (found,) = client.rpc("authenticated", user, "get_user_embedding_features", user_id=user)
    assert found.keys() == USER_KEYS
    return dict(found)


def expected_payload(world: World, user: UUID) -> dict[str, Any]:
    """The contract's payload, counted in Python."""
    rows = {row[0]: row for row in world.video_rows}
    decisions = [(v, d, at) for u, v, d, at in world.decisions if u == user]
    latest = max(at for _, _, at in decisions)
    likes = sorted(((at, v) for v, d, at in decisions if d == "like"), key=lambda x: (-x[0].timestamp(), x[1]))
    nopes = sorted(((at, v) for v, d, at in decisions if d == "nope"), key=lambda x: (-x[0].timestamp(), x[1]))
    liked = {v for _, v in likes}
    prices = [float(np.float32(rows[v][8])) for v in liked if rows[v][8]]
    recent = latest - timedelta(days=30)
    likes_30, nopes_30 = (sum(at > recent for at, _ in rows) for rows in (likes, nopes))

    def counted(keys: Any) -> dict[str, int]:
        return {str(k): n for k, n in Counter(keys).items() if k}

    return {
        "schema_version": 2,
        "model_version": "v1",
        "liked_tags": counted(t for v, t in world.video_tags if v in liked),
        "liked_performers": counted(p for v, p in world.video_performers if v in liked),
        "liked_makers": counted(rows[v][3] for v in liked),
        "liked_labels": counted(rows[v][4] for v in liked),
        "liked_series": counted(rows[v][5] for v in liked),
        "liked_sources": counted(rows[v][6] for v in liked),
        "liked_video_ids": [str(v) for _, v in likes],
        "noped_video_ids": [str(v) for _, v in nopes],
        "like_count": len(likes),
        "nope_count": len(nopes),
        "like_ratio": pytest.approx(len(likes) / (len(likes) + len(nopes))),
        "like_count_30d": likes_30,
        "positive_ratio_30d": pytest.approx(likes_30 / (likes_30 + nopes_30)),
        "price_sum": pytest.approx(sum(prices)),
        "priced_count": len(prices),
        "price_mean": pytest.approx(sum(prices) / len(prices)),
        "price_median": pytest.approx(median(prices)),
        "days_since_last_like": pytest.approx((latest - likes[0][0]).total_seconds() / 86400),
        "account_age_days": pytest.approx((latest - (EPOCH - timedelta(days=30))).total_seconds() / 86400),
        "hour_of_day_mean": pytest.approx(sum(at.hour for at, _ in likes) / len(likes)),
    }


@pytest.mark.parametrize("user", [WORLD.usual, WORLD.many, *WORLD.users[6:10]])
def test_a_users_payload_equals_counts_of_the_rows(user: UUID, client: Client) -> None:
    assert payload(client, user) == expected_payload(WORLD, user)


def test_a_user_without_decisions_has_a_payload_of_zeros(client: Client) -> None:
    found = payload(client, WORLD.no_decisions)
    assert {k: v for k, v in found.items() if v not in ({}, [], 0, None)} == {
        "schema_version": 2,
        "model_version": "v1",
    }
    assert found["like_ratio"] is None
    assert found["liked_tags"] == {}


def test_users_without_likes_have_payloads_of_zeros_but_for_their_nopes(client: Client) -> None:
    skips, nopes = payload(client, WORLD.only_skips), payload(client, WORLD.only_nopes)
    assert skips["like_count"] == skips["nope_count"] == 0
    assert (skips["liked_video_ids"], skips["noped_video_ids"]) == ([], [])
    assert (nopes["like_count"], nopes["nope_count"], nopes["like_ratio"]) == (0, 4, 0)
    assert len(nopes["noped_video_ids"]) == 4
    assert nopes["days_since_last_like"] is None


def test_an_items_payload_equals_the_values_of_the_rows(db: Connection, client: Client) -> None:
    rows = {row[0]: row for row in WORLD.video_rows}
    for video in WORLD.videos[:40]:
        (found,) = client.rpc("authenticated", WORLD.usual, "get_item_embedding_features", video_id=video)
        assert found.keys() == ITEM_KEYS
        _, _, title, maker, label, series, source, _, price, duration, released, _, description = rows[video]
        words = [sorted(column(db, "select two_tower.words_of(%s)", text)) for text in (title, description)]
        assert found == {
            "schema_version": 2,
            "tags": sorted(str(t) for v, t in WORLD.video_tags if v == video),
            "performers": sorted(str(p) for v, p in WORLD.video_performers if v == video),
            "source": source or None,
            "maker": maker or None,
            "label": label or None,
            "series": series or None,
            "title_words": words[0],
            "description_words": words[1],
            "content_vectors": {},
            "price": None if price is None else pytest.approx(price),
            "duration_seconds": duration,
            "released_days": None if released is None else (released - datetime(1900, 1, 1, tzinfo=UTC)).days,
        }


def test_a_video_without_attributes_has_an_empty_payload(client: Client) -> None:
    (found,) = client.rpc("service_role", None, "get_item_embedding_features", video_id=WORLD.bare_video)
    lists = ("tags", "performers", "title_words", "description_words")
    assert found == dict.fromkeys(ITEM_KEYS) | {"schema_version": 2, "content_vectors": {}} | {
        name: [] for name in lists
    }


def test_times_are_relative_to_the_latest_decision_and_never_to_the_clock(db: Connection, client: Client) -> None:
    """I1: moving a whole history, and the account's birth, by ten years changes no payload."""
    before = payload(client, WORLD.usual)
    db.execute("update public.user_video_decisions set created_at = created_at - interval '3650 days'")
    db.execute("update public.profiles set created_at = created_at - interval '3650 days'")
    assert payload(client, WORLD.usual) == before


# -------------------------------------------------------------------------------------------- access


@pytest.mark.parametrize("name", ["get_user_embedding_features", "update_user_features"])
def test_only_the_user_and_the_service_read_features(name: str, client: Client) -> None:
    argument = "user_id" if name.startswith("get") else "p_user_id"
    mine, other = {argument: str(WORLD.usual)}, {argument: str(WORLD.many)}
    assert len(client.rpc("authenticated", WORLD.usual, name, **mine)) == 1
    assert len(client.rpc("service_role", None, name, **other)) == 1
    with pytest.raises(errors.InsufficientPrivilege, match="another user's"):
        client.rpc("authenticated", WORLD.usual, name, **other)
    with pytest.raises(errors.InsufficientPrivilege, match="another user's"):
        client.rpc("authenticated", WORLD.usual, name, **{argument: str(NOBODY)})
    with pytest.raises(errors.InvalidAuthorizationSpecification, match="not signed in"):
        client.rpc("authenticated", None, name, **mine)
    with pytest.raises(errors.InsufficientPrivilege, match="permission denied"):
        client.rpc("anon", None, name, **mine)
    with pytest.raises(errors.InsufficientPrivilege, match="another user's"):
        client.rpc("authenticated", WORLD.usual, name, **{argument: None})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("get_user_embedding_features", {"user_id": str(NOBODY)}),
        ("update_user_features", {"p_user_id": str(NOBODY)}),
        ("get_item_embedding_features", {"video_id": str(NOBODY)}),
    ],
)
def test_an_unknown_id_is_an_error(name: str, arguments: dict[str, str], client: Client) -> None:
    with pytest.raises(errors.NoDataFound, match=str(NOBODY)):
        client.rpc("service_role", None, name, **arguments)


def test_a_user_deleted_after_the_token_was_issued_is_unknown(client: Client) -> None:
    with pytest.raises(errors.NoDataFound):
        client.rpc("authenticated", NOBODY, "get_user_embedding_features", user_id=NOBODY)


@pytest.mark.parametrize("name", ["get_user_embedding_feature_batch", "get_item_embedding_feature_batch"])
@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_only_the_service_reads_batches(name: str, role: str, client: Client) -> None:
    with pytest.raises(errors.InsufficientPrivilege, match="permission denied"):
        client.rpc(role, WORLD.usual, name)


# -------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("kind", ["user", "item"])
def test_pages_by_offset_and_by_key_add_up_to_all_rows(kind: str, client: Client) -> None:
    name, key = f"get_{kind}_embedding_feature_batch", "user_id" if kind == "user" else "video_id"
    whole = client.rpc("service_role", None, name, limit=10_000)
    ids = [row[key] for row in whole]
    decided = {str(u) for u, *_ in WORLD.decisions}
    assert ids == sorted(decided if kind == "user" else map(str, WORLD.videos))
    assert all(row["features"].keys() == (USER_KEYS if kind == "user" else ITEM_KEYS) for row in whole)

    by_offset: list[Any] = []
    while page := client.rpc("service_role", None, name, limit=17, offset=len(by_offset)):
        assert len(page) <= 17
        by_offset += page
    assert by_offset == whole

    by_key: list[Any] = []
    while page := client.rpc("service_role", None, name, limit=17, after=by_key[-1][key] if by_key else None):
        by_key += page
    assert by_key == whole


@pytest.mark.parametrize("kind", ["user", "item"])
def test_batches_equal_single_payloads(kind: str, client: Client) -> None:
    key = "user_id" if kind == "user" else "video_id"
    with client.as_("service_role") as connection:
        for row in rpc(connection, f"get_{kind}_embedding_feature_batch", limit=12):
            assert rpc(connection, f"get_{kind}_embedding_features", **{key: row[key]}) == [row["features"]]


@pytest.mark.parametrize("name", ["get_user_embedding_feature_batch", "get_item_embedding_feature_batch"])
@pytest.mark.parametrize(
    "bad", [{"limit": 0}, {"limit": -1}, {"limit": None}, {"limit": 10_001}, {"offset": -1}, {"offset": None}]
)
def test_a_page_out_of_bounds_is_a_bad_argument(name: str, bad: dict[str, Any], client: Client) -> None:
    with pytest.raises(errors.InvalidParameterValue, match=re.escape(next(iter(bad)))):
        client.rpc("service_role", None, name, **bad)


def test_a_page_past_the_end_is_empty(client: Client) -> None:
    assert client.rpc("service_role", None, "get_user_embedding_feature_batch", offset=100_000) == []
    assert client.rpc("service_role", None, "get_item_embedding_feature_batch", after=NOBODY) == []


# -------------------------------------------------------------------------------------------- stored features


def test_update_user_features_stores_what_it_returns(db: Connection, client: Client) -> None:
    (like,) = WORLD.of(WORLD.one_like, "like")
    db.execute("update public.user_video_decisions set decision_type = 'nope' where user_id = %s", (WORLD.one_like,))
    (row,) = client.rpc("authenticated", WORLD.one_like, "update_user_features", p_user_id=WORLD.one_like)
    assert (row["like_count"], row["nope_count"], row["noped_video_ids"]) == (0, 1, [str(like)])
    assert row == one(db, "select to_jsonb(f) from public.user_features f where user_id = %s", WORLD.one_like)


def test_update_user_features_rewrites_nothing_that_is_equal(db: Connection) -> None:
    stamp = "select xmin::text || updated_at from public.user_features where user_id = %s"
    before = one(db, stamp, WORLD.usual)
    db.execute("select public.update_user_features(%s)", (WORLD.usual,))
    assert one(db, stamp, WORLD.usual) == before


@pytest.mark.parametrize("user", [WORLD.no_decisions, WORLD.only_skips])
def test_update_user_features_of_someone_without_likes_and_nopes(user: UUID, db: Connection, client: Client) -> None:
    (row,) = client.rpc("authenticated", user, "update_user_features", p_user_id=user)
    assert row.pop("user_id") == str(user)
    assert row.pop("updated_at")
    assert all(value in ({}, [], 0) for value in row.values())
    assert one(db, "select count(*) from public.user_features where user_id = %s", user) == 0


def test_a_user_who_deletes_all_decisions_loses_their_features(db: Connection) -> None:
    db.execute("delete from public.user_video_decisions where user_id = %s", (WORLD.usual,))
    db.execute("select public.update_user_features(%s)", (WORLD.usual,))
    assert one(db, "select count(*) from public.user_features where user_id = %s", WORLD.usual) == 0


def test_stored_features_equal_the_payloads(db: Connection) -> None:
    """Each stored column equals the payload's value."""
    differing = column(
        db,
        """select f.user_id from public.user_features f
        join two_tower.user_payloads(array(select user_id from public.user_features)) p on p.user_id = f.user_id
        where not (p.features @> to_jsonb(f) - 'user_id' - 'updated_at')""",
    )
    assert differing == []
    assert one(db, "select count(*) from public.user_features") == len(WORLD.users) - 2
