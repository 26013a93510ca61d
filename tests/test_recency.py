"""Recent decisions count more: input schema version 2.

A version weighs a decision by its place among the likes and nopes of its user: how many are strictly newer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, LiteralString
from uuid import UUID

import numpy as np
import psycopg
import pytest
from pgvector import HalfVector, Vector

from conftest import Connect, NewDatabase, Prepared
from synthetic import make_data
from test_features import assert_one_encoder
from tiers import some
from two_tower.features import LIKE, NOPE, SKIP, FeatureSchema, TrainingData, decision_weights, recency_places
from two_tower.lifecycle import towers
from two_tower.trainer import dataset
from world_fixtures import Client, column, load, make_world, one, refresh, register, state, tiny_model

Connection = psycopg.Connection[Any]

EXPONENTS = [0.0, 0.3, 0.5, 1.0, 2.0, 10.0]


# -------------------------------------------------------------------------------------------- the trainer's side


def timed(seed: int, distinct: int) -> TrainingData:
    """Data with ``distinct`` times; with few of them, ties are common."""
    data = make_data(users=25, items=40, each=12, seed=seed)
    times = np.random.default_rng(seed).integers(0, distinct, len(data.user)) * 1e6
    return TrainingData(**{**vars(data), "time": times.astype(np.float64)})


@pytest.mark.parametrize("distinct", [1, 2, 5, 1000])
def test_a_place_is_the_number_of_newer_likes_and_nopes_of_the_user(distinct: int) -> None:
    data = timed(7, distinct)
    found = data.places()
    for row, (user, time, label) in enumerate(zip(data.user, data.time, data.label, strict=True)):
        newer = (data.user == user) & (data.time > time) & (data.label != SKIP)
        assert found[row] == (0 if label == SKIP else newer.sum())


def test_places_are_counted_only_among_the_given_rows() -> None:
    """Held-out rows do not count, so they do not make other rows older."""
    data = timed(3, 50)
    kept = np.random.default_rng(0).random(len(data.user)) < 0.5
    part = TrainingData(**{**vars(data), **{n: getattr(data, n)[kept] for n in ("user", "item", "label", "time")}})
    np.testing.assert_array_equal(data.places(kept)[kept], part.places())
    for label in (LIKE, NOPE):
        difference = data.matrix(label, kept, 0.5) - part.matrix(label, recency=0.5)
        assert difference.nnz == 0 or abs(difference).max() == 0


def test_no_rows_have_no_places() -> None:
    assert recency_places(np.array([], dtype=np.int32), np.array([])).tolist() == []


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_weights_decrease_from_one_and_stay_positive(exponent: float) -> None:
    weights = decision_weights(np.array([0, 0, 1, 2, 50, 10**9]), exponent)
    assert weights.dtype == np.float32
    assert weights[:2].tolist() == [1, 1]
    assert (np.diff(weights) <= 0).all()
    assert weights[-1] >= 2.0**-20
    assert weights[2] == pytest.approx(max(2**-exponent, 2.0**-20), abs=2.0**-25)


def test_a_matrix_without_recency_is_of_ones() -> None:
    data = timed(1, 30)
    assert set(data.matrix(LIKE).data) == set(data.matrix(LIKE, recency=0.0).data) == {1.0}
    weighted = data.matrix(LIKE, recency=0.5)
    assert (weighted.indices == data.matrix(LIKE).indices).all()
    assert weighted.data.min() < 1 == weighted.data.max()


def test_the_schema_contains_the_exponent() -> None:
    data = timed(1, 30)
    schema = FeatureSchema(data.schema.vocabularies, 0.5)
    assert schema.to_json()["user"]["recency"] == 0.5
    assert data.schema.to_json()["user"]["recency"] == 0
    for bad in (-1e-9, 10.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="recency"):
            FeatureSchema(data.schema.vocabularies, bad)


# -------------------------------------------------------------------------------------------- the database's side

WORLD = make_world(150, 40, 1)
VERSION = "v1"
ODD_TIMES = ("infinity", "-infinity", "1500-01-01", "1969-12-31 23:59:59", "1970-01-01 00:00:00+00", "2300-01-01", None)


@pytest.fixture
def clean_db(connect: Any) -> Connection:
    """A migrated database without a world."""
    connection: Connection = connect()
    return connection


def prepare(db: Connection, exponent: float) -> None:
    load(db, WORLD)
    db.execute("alter table user_video_decisions alter column created_at drop not null")
    db.execute("update user_video_decisions set created_at = date_trunc('month', created_at)")
    for time, user in zip(ODD_TIMES, WORLD.users[5:], strict=False):
        db.execute(
            """update user_video_decisions set created_at = %s
            where user_id = %s and hashtext(video_id::text) %% 3 = 0""",
            (time, user),
        )
    db.execute("update user_video_decisions set created_at = null where user_id = %s", (WORLD.users[20],))
    tiny_model(db, VERSION, recency=exponent)


@pytest.fixture(params=some([0.5, 2.0], 1))
def exponent(request: pytest.FixtureRequest) -> float:
    return float(request.param)


@pytest.fixture
def dsn(database: NewDatabase, template: str, prepared: Prepared, request: pytest.FixtureRequest) -> str:
    """A database without a world, except for tests with the fixture :func:`db`."""
    if "exponent" in request.fixturenames:
        return database(template=prepared(template, prepare, request.getfixturevalue("exponent")))
    return database()


@pytest.fixture
def db(exponent: float, connect: Connect) -> Connection:
    """A version with recency, in a world with ties, unusual times and missing ones."""
    return connect()


def vectors(db: Connection, query: LiteralString) -> dict[UUID, np.ndarray]:
    return {user: HalfVector.from_text(text).to_numpy().astype(np.float32) for user, text in db.execute(query)}


STORED: LiteralString = "select user_id, embedding::text from two_tower.user_embeddings"
DEFINED: LiteralString = """
    select user_id, embedding::text from two_tower.define_users(array(select id from auth.users), 'v1', {})
"""


def engines(db: Connection) -> list[LiteralString]:
    found: list[LiteralString] = []
    if one(db, "select exists (select from two_tower.model_weights)"):
        found.append("'sql'")
    if one(db, "select two_tower.has_onnxruntime()"):
        found.append("'onnxruntime'")
    return found


def assert_as_defined(db: Connection) -> None:
    """Asserts that stored vectors equal the outputs of the exported tower for the weighted counts, for every user."""
    stored = vectors(db, STORED)
    likers = set(column(db, "select user_id from user_video_decisions where decision_type = 'like'"))
    assert stored.keys() == likers
    for engine in engines(db):
        defined = vectors(db, DEFINED.replace("{}", engine))
        assert defined.keys() == stored.keys()
        for user, vector in stored.items():
            assert 1 - float(vector @ defined[user]) < 1e-3, user
            np.testing.assert_allclose(vector, defined[user], atol=2e-3)


def assert_as_rebuilt(db: Connection) -> None:
    """Asserts that stored vectors equal a rebuild bit for bit, also one by one by embed_users(), and by verify."""
    before = state(db)
    one_by_one = {
        user: one(db, "select embedding::text from two_tower.embed_users(array[%s::uuid], 'v1')", user)
        for user in column(db, "select user_id from two_tower.user_embeddings")
    }
    assert one_by_one == {u: before[f"user {u} v1"][0] for u in one_by_one}
    verified = db.execute("select features, vectors, tastes from two_tower.verify_batch('user', null, 1000)").fetchone()
    assert verified == ([], [], [])
    db.execute("call two_tower.rebuild()")
    assert state(db) == before


@pytest.mark.sampled(1)
def test_i2_sql_weighs_inputs_as_the_trainer_does(db: Connection) -> None:
    """I2, with weights: number by number."""
    data = dataset.read(db)
    data = replace(data, schema=replace(data.schema, recency=float(one(db, "select two_tower.recency_of('v1')"))))
    assert_one_encoder(db, data, VERSION)


@pytest.mark.sampled(1)
def test_sums_equal_the_outputs_of_the_exported_tower(db: Connection) -> None:
    assert_as_defined(db)
    assert_as_rebuilt(db)


@pytest.mark.sampled(1)
def test_changes_reweigh_the_whole_history(db: Connection) -> None:
    user = WORLD.many
    newest = """select video_id from user_video_decisions
        where user_id = %s and decision_type <> 'skip' order by created_at desc nulls last limit 1"""
    changes: list[tuple[LiteralString, tuple[Any, ...]]] = [
        ("delete from user_video_decisions where user_id = %s and video_id = ({})", (user, user)),
        ("update user_video_decisions set decision_type = 'skip' where user_id = %s and video_id = ({})", (user, user)),
        (
            "update user_video_decisions set created_at = '2020-01-01' where user_id = %s and video_id = ({})",
            (user, user),
        ),
        ("update user_video_decisions set created_at = null where user_id = %s and video_id = ({})", (user, user)),
        ("update user_video_decisions set created_at = created_at - interval '1 year' where user_id = %s", (user,)),
        (
            "insert into user_video_decisions (user_id, video_id, decision_type) select %s, v.id, 'nope' from videos v "
            "where v.id not in (select video_id from user_video_decisions where user_id = %s) order by id limit 2",
            (user, user),
        ),
        ("delete from videos where id = ({})", (user,)),
        ("update videos set maker = 'another' where id = ({})", (user,)),
    ]
    moved = 0
    for statement, values in changes:
        before = one(db, "select embedding::text from two_tower.user_embeddings where user_id = %s", user)
        db.execute(statement.replace("{}", newest).encode(), values)
        # A vector computed before the refresh equals the one that the refresh will store.
        spot = one(db, "select embedding::text from two_tower.embed_users(array[%s::uuid], 'v1')", user)
        refresh(db)
        after = one(db, "select embedding::text from two_tower.user_embeddings where user_id = %s", user)
        assert spot == after, statement
        moved += before != after
        assert_as_defined(db)
    assert moved >= 6  # a history that moves as a whole, or an unknown maker, may change nothing
    assert_as_rebuilt(db)
    assert one(db, "select count(*) from two_tower.failed_changes") == 0


def test_a_history_moved_in_time_keeps_its_vectors(db: Connection) -> None:
    """Places depend on the order, never on the clock."""
    db.execute("update user_video_decisions set created_at = timestamptz '2020-01-01' + random() * interval '1 year'")
    refresh(db)
    before = state(db)
    db.execute("update user_video_decisions set created_at = created_at + interval '26000 hours'")
    refresh(db)
    assert {k: v for k, v in state(db).items() if k.startswith("user")} == {
        k: v for k, v in before.items() if k.startswith("user")
    }


def test_decisions_without_times_all_weigh_1(db: Connection) -> None:
    tiny_model(db, "v2", activate=False)
    db.execute("update user_video_decisions set created_at = '2024-05-01'")
    refresh(db)
    query = "select user_id, embedding::text from two_tower.embed_users(array(select id from auth.users), %s)"
    assert db.execute(query, ("v1",)).fetchall() == db.execute(query, ("v2",)).fetchall()


@pytest.mark.sampled(1)
def test_the_reason_is_the_like_that_adds_most(db: Connection, client: Client) -> None:
    user = WORLD.usual
    recency = float(one(db, "select two_tower.recency_of('v1')"))
    tiny_model(db, "sums", engine="sql", recency=recency)  # reasons come from sums
    db.execute("update user_video_decisions set created_at = timestamptz '2024-01-01' + random() * interval '1 year'")
    refresh(db)
    rows = db.execute(
        """select d.video_id, t.liked::text, (
            select count(*) from user_video_decisions o
            where o.user_id = d.user_id and o.created_at > d.created_at and o.decision_type <> 'skip'
        )
        from user_video_decisions d
        join two_tower.video_tastes t on t.video_id = d.video_id and t.model_version = 'sums'
        where d.user_id = %s and d.decision_type = 'like'""",
        (user,),
    ).fetchall()
    tastes = {
        video: Vector.from_text(text).to_numpy() * decision_weights(np.array([place]), recency)[0]
        for video, text, place in rows
    }
    places = vectors(db, "select video_id, embedding::text from video_embeddings")
    listed = client.rpc("authenticated", user, "recommend_videos", **{"limit": 20, "because": True})
    said = [row for row in listed if row["because_video_id"]]
    assert said
    for row in said:
        place = places[UUID(row["video_id"])][:127]
        adds = {str(video): float(taste @ place) for video, taste in tastes.items()}
        assert adds[row["because_video_id"]] == pytest.approx(max(adds.values()), rel=1e-3)


def test_the_page_can_preview_lists_of_weighted_versions(db: Connection) -> None:
    preview = "select count(*) from two_tower.preview_recommendations(array[%s::uuid], 'v1')"
    with db.transaction():
        db.execute("set local role two_tower_viewer")
        assert one(db, preview, WORLD.usual) == 20


@pytest.mark.sampled(1)
def test_lists_use_the_weight_of_each_like(db: Connection) -> None:
    tiny_model(db, "v2", activate=False)
    history = "select liked, weights from two_tower.history_of(%s, %s)"
    liked, weights = db.execute(history, (WORLD.many, "v1")).fetchone() or ([], [])
    assert set(liked) == WORLD.of(WORLD.many, "like")
    counted = (
        "select value::real from two_tower.user_inputs(array[%s::uuid], two_tower.recency_of('v1')) where key = %s"
    )
    assert weights == [one(db, counted, WORLD.many, str(video)) for video in liked]
    assert min(weights) < max(weights) == 1
    assert one(db, "select weights from two_tower.history_of(%s, 'v2')", WORLD.many) is None


def test_payloads_have_weighted_and_plain_counts(db: Connection, client: Client) -> None:
    (found,) = client.rpc("service_role", None, "get_user_embedding_features", user_id=WORLD.usual)
    assert found["recency"] == one(db, "select two_tower.recency_of('v1')")
    weighted = found["weighted"]
    assert weighted["liked_video_ids"].keys() == set(found["liked_video_ids"])
    assert 0 < weighted["like_count"] < found["like_count"] == len(found["liked_video_ids"])
    assert sum(weighted["liked_video_ids"].values()) == pytest.approx(weighted["like_count"], rel=1e-5)
    assert found["liked_makers"].keys() == weighted["liked_makers"].keys()
    stored = one(db, "select like_count from public.user_features where user_id = %s", WORLD.usual)
    assert stored == found["like_count"]
    (nobody,) = client.rpc("service_role", None, "get_user_embedding_features", user_id=WORLD.no_decisions)
    assert nobody["weighted"] == {}


def test_models_of_schema_version_1_use_no_recency(clean_db: Connection) -> None:
    load(clean_db, WORLD)
    model = tiny_model(clean_db, "v1", activate=False)
    old = replace(model, feature_schema=model.feature_schema | {"schema_version": 1})
    del old.feature_schema["user"]["recency"]
    register(clean_db, old, "old")
    assert one(clean_db, "select two_tower.recency_of('old')") == 0
    query = "select user_id, embedding::text from two_tower.embed_users(array(select id from auth.users), %s)"
    assert clean_db.execute(query, ("v1",)).fetchall() == clean_db.execute(query, ("old",)).fetchall()
    assert towers.load(clean_db, "old").schema.recency == 0


def test_towers_load_with_their_exponent(db: Connection) -> None:
    recency = one(db, "select two_tower.recency_of('v1')")
    loaded = towers.load(db, VERSION)
    assert loaded.schema.recency == recency
    assert towers.smaller(loaded, 10).schema.recency == recency
