"""A decision's own weight has the same effect in features, sums, training, payloads, lists and reasons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import numpy as np
import psycopg
import pytest
from pgvector import Vector
from scipy import sparse

from conftest import NewDatabase, Prepared
from synthetic import make_data
from test_features import assert_one_encoder
from test_recency import assert_as_defined, assert_as_rebuilt, vectors
from tiers import some
from two_tower.data.imports import import_decisions
from two_tower.errors import UserError
from two_tower.features import LIKE, NOPE, SKIP, decision_weights
from two_tower.trainer import dataset, evaluate, items
from two_tower.trainer.loss import binary_cross_entropy, sampled_softmax
from two_tower.trainer.options import TrainOptions
from two_tower.trainer.part import Part
from world_fixtures import Client, column, load, make_world, one, refresh, state, tiny_model

Connection = psycopg.Connection[Any]

# -------------------------------------------------------------------------------------------- the trainer's side

GIVEN = np.array([0.01, 0.2, 0.5, 0.8, 1, 1.25, 3, 10], dtype=np.float32)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 2.0, 10.0])
def test_weights_multiply_with_those_of_recency(exponent: float) -> None:
    places = np.array([0, 1, 7, 10**6])
    for given in GIVEN:
        found = decision_weights(places, exponent, np.full(4, given))
        assert (found * 2.0**24 == np.round(found.astype(np.float64) * 2.0**24)).all()  # so that sums are exact
        expected = np.maximum((1.0 + places) ** -exponent * float(given), 2.0**-20)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2.0**-24)
        assert found[0] == pytest.approx(given, abs=2.0**-24)
    np.testing.assert_array_equal(decision_weights(places, exponent, np.ones(4)), decision_weights(places, exponent))


def test_weights_of_1_train_the_same_model_as_none() -> None:
    data = make_data(users=40, items=30, times=True)
    ones = replace(data, weight=np.ones(len(data.user), dtype=np.float32))
    for label in (LIKE, NOPE, SKIP):
        for recency in (0.0, 0.5):
            assert (data.matrix(label, recency=recency) != ones.matrix(label, recency=recency)).nnz == 0
    rows = np.ones(len(data.user), dtype=bool)
    parts = [Part(each, rows, TrainOptions()) for each in (data, ones)]
    assert (parts[0].like_count == parts[1].like_count).all()


def test_training_uses_weights_and_counts_use_likes() -> None:
    data = make_data(users=60, items=30, times=True)
    weight = np.random.default_rng(0).choice(GIVEN, len(data.user))
    data = replace(data, weight=weight)
    part = Part(data, np.ones(len(data.user), dtype=bool), TrainOptions())
    likes = data.label == LIKE
    dense = np.zeros((data.n_users, data.n_items), dtype=np.float32)
    dense[data.user[likes], data.item[likes]] = decision_weights(np.zeros(int(likes.sum())), 0.0, weight[likes])
    np.testing.assert_array_equal(part.likes.toarray(), dense)
    assert part.like_count.sum() == likes.sum()
    assert set(data.matrix(LIKE, given=False).data) == {1.0}
    (table,) = items.tables(sparse.csr_matrix(dense), [50.0], user_power=0.0, item_power=0.0)
    inverse = np.linalg.inv(dense.T.astype(np.float64) @ dense + 50 * np.eye(data.n_items))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(table, expected, atol=1e-4)


def test_rankings_are_measured_by_likes_without_weights() -> None:
    data = make_data(users=30, items=20, each=6)
    weighed = replace(data, weight=np.random.default_rng(0).choice(GIVEN, len(data.user)))
    scorer = evaluate.by_chance(data.n_items)
    rankings = [evaluate.rank(scorer, each.matrix(LIKE)).mean() for each in (data, weighed)]
    assert rankings[0] == rankings[1]


def test_losses_weigh_pairs_by_their_weight() -> None:
    import torch

    users, places = torch.eye(3)[:2], torch.eye(3)
    positive, ids, none = torch.tensor([0, 2]), torch.arange(3), torch.zeros(3)
    each = [sampled_softmax(users[i : i + 1], places, positive[i : i + 1], ids, none).item() for i in range(2)]
    both = sampled_softmax(users, places, positive, ids, none, weights=torch.tensor([3.0, 0.5]))
    assert both.item() == pytest.approx((3 * each[0] + 0.5 * each[1]) / 2)
    scores, labels = torch.tensor([1.0, -2.0]), torch.tensor([1.0, 0.0])
    each = [binary_cross_entropy(scores[i : i + 1], labels[i : i + 1]).item() for i in range(2)]
    both = binary_cross_entropy(scores, labels, weights=torch.tensor([3.0, 0.5]))
    assert both.item() == pytest.approx((3 * each[0] + 0.5 * each[1]) / 2)


# -------------------------------------------------------------------------------------------- the database's side

WORLD = make_world(150, 40, 1)
WEIGH: LiteralString = """
    update user_video_decisions
    set weight = (array[0.01, 0.2, 0.5, 0.8, 1, 1.25, 3, 10])[1 + abs(hashtext(user_id::text || video_id)) %% 8]
    where user_id <> %s
"""


def prepare(db: Connection, recency: float) -> None:
    """A version in a world in which all users but one have decisions of all weights."""
    load(db, WORLD)
    db.execute(WEIGH, (WORLD.usual,))
    tiny_model(db, recency=recency)


@pytest.fixture(params=some([0.5, 0.0], 1))
def dsn(database: NewDatabase, template: str, prepared: Prepared, request: pytest.FixtureRequest) -> str:
    return database(template=prepared(template, prepare, request.param))


def test_stored_vectors_equal_tower_outputs_for_weighted_inputs(db: Connection) -> None:
    data = dataset.read(db)
    assert data.weight is not None
    assert len(set(data.weight)) == 8
    recency = float(one(db, "select two_tower.recency_of('v1')"))
    assert_one_encoder(db, replace(data, schema=replace(data.schema, recency=recency)), "v1")
    assert_as_defined(db)
    assert_as_rebuilt(db)


def test_only_changes_of_the_bounded_weight_are_logged(db: Connection) -> None:
    user = WORLD.many
    db.execute("alter table user_video_decisions drop constraint user_video_decisions_weight_check")
    update = "update user_video_decisions set weight = %s::real where user_id = %s and video_id = %s"
    (first, *_) = sorted(WORLD.of(user, "like"))
    (skipped, *_) = sorted(WORLD.of(user, "skip"))
    (noped, *_) = sorted(WORLD.of(user, "nope"))
    counts = 1.0
    db.execute(update, (counts, user, first))
    refresh(db)
    # Values outside the bounds, which an adopted table may not check, count as the nearer bound.
    for value, bounded in (
        *((w, w) for w in (0.3, 7, 1)),
        *((w, 10) for w in (10, 11, 1e30, "Infinity")),
        *((w, 0.01) for w in (0.01, 0, -5, 1e-30, "-Infinity")),
        *((w, 1) for w in (1, "NaN")),
    ):
        before = one(db, "select embedding::text from two_tower.user_embeddings where user_id = %s", user)
        db.execute(update, (value, user, first))
        waits = one(db, "select exists (select from two_tower.pending_users where user_id = %s)", user)
        assert waits == (bounded != counts), value
        counts = bounded
        spot = one(db, "select embedding::text from two_tower.embed_users(array[%s::uuid], 'v1')", user)
        refresh(db)
        after = one(db, "select embedding::text from two_tower.user_embeddings where user_id = %s", user)
        assert spot == after, value
        assert (before != after) == waits, value
    db.execute(update, (3, user, skipped))
    assert not one(db, "select exists (select from two_tower.pending_users)")
    db.execute(update, (3.5, user, noped))
    refresh(db)
    assert_as_defined(db)
    assert_as_rebuilt(db)


def test_the_column_weight_may_have_any_type_or_be_absent(db: Connection, tmp_path: Path) -> None:
    """An adopted table keeps the application's column."""
    rebuilt = "call two_tower.rebuild()"
    expected = state(db)
    db.execute("alter table user_video_decisions drop constraint user_video_decisions_weight_check")
    db.execute("alter table user_video_decisions alter column weight drop default, alter column weight drop not null")
    for kind in ("double precision", "numeric", "text", "varchar(20)", "jsonb"):
        using = "to_jsonb(weight::real)" if kind == "jsonb" else f"weight::{kind}"
        db.execute(f"alter table user_video_decisions alter column weight type {kind} using {using}".encode())
        db.execute(rebuilt)
        same = {key: value for key, value in state(db).items() if key.startswith(("user", "taste"))}
        assert same == {key: expected[key] for key in same}, kind
        back = "(weight #>> '{}')::real" if kind == "jsonb" else "weight::real"
        db.execute(f"alter table user_video_decisions alter column weight type real using {back}".encode())
    db.execute("update user_video_decisions set weight = 1")
    refresh(db)
    ones = state(db)
    db.execute("update user_video_decisions set weight = null")
    assert not one(db, "select exists (select from two_tower.pending_users)")
    db.execute("alter table user_video_decisions alter column weight type text")
    db.execute(
        """update user_video_decisions
        set weight = (array['', 'much', '1e', '1.0', 'NaN'])[1 + abs(hashtext(video_id::text)) % 5]"""
    )
    db.execute(rebuilt)
    assert state(db) == ones
    db.execute("alter table user_video_decisions drop column weight")
    db.execute(rebuilt)
    assert state(db) == ones
    user = WORLD.usual
    db.execute("update user_video_decisions set decision_type = 'nope' where user_id = %s", (user,))
    db.execute("delete from user_video_decisions where user_id = %s and created_at > '2025-03-01'", (WORLD.many,))
    refresh(db)
    assert_as_rebuilt(db)
    found = dataset.read(db).weight
    assert found is not None
    assert set(found) == {1.0}
    with pytest.raises(UserError, match="no column weight"):
        import_decisions(db, _file(tmp_path, f"user_id,video_id,decision,weight\n{user},{WORLD.videos[5]},like,2\n"))


def test_lists_reasons_and_payloads_use_the_same_weights(db: Connection, client: Client) -> None:
    recency = float(one(db, "select two_tower.recency_of('v1')"))
    liked, weights = db.execute(
        "select liked, weights from two_tower.history_of(%s, 'v1')", (WORLD.many,)
    ).fetchone() or ([], [])
    (found,) = client.rpc("service_role", None, "get_user_embedding_features", user_id=WORLD.many)
    assert weights == pytest.approx([found["weighted"]["liked_video_ids"][str(video)] for video in liked])
    given = dict(
        db.execute(
            """select video_id::text, weight from user_video_decisions
            where user_id = %s and decision_type <> 'skip' and weight <> 1""",
            (WORLD.many,),
        ).fetchall()
    )
    assert found["weights"] == pytest.approx(given)
    # A user without weights gets the same payload as before decisions had weights.
    (plain,) = client.rpc("service_role", None, "get_user_embedding_features", user_id=WORLD.usual)
    assert "weights" not in plain
    assert ("weighted" in plain) == (recency > 0)
    assert (one(db, "select weights from two_tower.history_of(%s, 'v1')", WORLD.usual) is None) == (recency == 0)

    tiny_model(db, "sums", engine="sql", recency=recency)  # reasons come from sums
    tastes = {
        str(video): Vector.from_text(text).to_numpy() * dict(zip(liked, weights, strict=True))[video]
        for video, text in db.execute(
            """select video_id, liked::text from two_tower.video_tastes
            where model_version = 'sums' and video_id = any (%s)""",
            (liked,),
        )
    }
    places = vectors(db, "select video_id, embedding::text from video_embeddings")
    listed = client.rpc("authenticated", WORLD.many, "recommend_videos", **{"limit": 20, "because": True})
    said = [row for row in listed if row["because_video_id"]]
    assert said
    for row in said:
        adds = {video: float(taste @ places[UUID(row["video_id"])][:127]) for video, taste in tastes.items()}
        assert adds[row["because_video_id"]] == pytest.approx(max(adds.values()), rel=1e-3)


@pytest.mark.parametrize("dsn", [0.0], indirect=True)
def test_clients_send_decision_and_video_and_optionally_a_weight(db: Connection, client: Client) -> None:
    user, other = WORLD.no_decisions, WORLD.usual
    decide: LiteralString = """
        insert into user_video_decisions (video_id, decision_type) values (%s, 'like')
        returning user_id, weight, created_at = now()
    """
    with client.as_("authenticated", user) as connection:
        assert connection.execute(decide, (WORLD.videos[3],)).fetchone() == (user, 1, True)
    weigh: LiteralString = "insert into user_video_decisions (video_id, decision_type, weight) values (%s, 'like', %s)"
    for video, weight in zip(WORLD.videos[4:], (0.01, 0.5, 10), strict=False):
        with client.as_("authenticated", user) as connection:
            connection.execute(weigh, (video, weight))
    for bad in (0, -1, 0.009, 10.001, 1e30, "NaN", "Infinity", "-Infinity"):
        with pytest.raises(psycopg.errors.CheckViolation), client.as_("authenticated", user) as connection:
            connection.execute(weigh, (WORLD.videos[20], bad))
    with pytest.raises(psycopg.errors.NotNullViolation), client.as_("authenticated", user) as connection:
        connection.execute(weigh, (WORLD.videos[20], None))
    with pytest.raises(psycopg.errors.InsufficientPrivilege), client.as_("authenticated", user) as connection:
        connection.execute(
            "insert into user_video_decisions (user_id, video_id, decision_type) values (%s, %s, 'like')",
            (other, WORLD.videos[20]),
        )
    with pytest.raises(psycopg.errors.InsufficientPrivilege), client.as_("anon") as connection:
        connection.execute(decide, (WORLD.videos[20],))
    refresh(db)
    assert len(column(db, "select video_id from user_video_decisions where user_id = %s", user)) == 4
    assert_as_rebuilt(db)


# ---------------------------------------------------------------------------------------------------- imports


def _file(directory: Path, content: str) -> Path:
    path = directory / "weights.csv"
    path.write_text(content)
    return path


@pytest.mark.parametrize("dsn", [0.0], indirect=True)
def test_imports_say_what_decisions_count(db: Connection, tmp_path: Path) -> None:
    user, videos = WORLD.no_decisions, WORLD.videos[10:14]
    of = "select weight from user_video_decisions where user_id = %s and video_id = %s"

    def imported(header: str, *cells: str, weight: float | None = None) -> tuple[list[float | None], Any]:
        lines = [f"{user},{video},like,{cell}" for video, cell in zip(videos, cells, strict=False)]
        content = "\n".join([f"user_id,video_id,decision,{header}", *lines])
        summary = import_decisions(db, _file(tmp_path, content), weight=weight)
        found = [db.execute(of, (user, video)).fetchone() for video in videos]
        return [None if row is None else row[0] for row in found], summary

    def about(*expected: float) -> Any:
        return pytest.approx(list(expected))

    assert imported("maker", "", "", "", "")[0] == about(1, 1, 1, 1)
    assert imported("weight", "0.5", " 2 ", "10", "")[0] == about(0.5, 2, 10, 1)
    found, summary = imported("weight", "0.5", "2", "10", "")
    assert (summary.unchanged, summary.updated, found) == (4, 0, about(0.5, 2, 10, 1))
    assert imported("maker", "", "", "", "")[0] == about(0.5, 2, 10, 1)  # a file without values keeps existing weights
    assert imported("stars", "5", "4", "2.5", "0")[0] == about(1, 0.8, 0.5, 0.01)
    assert imported("watched", "1", "0.25", "0", "")[0] == about(1, 0.25, 0.01, 0.01)
    assert imported("maker", "", "", "", "", weight=3)[0] == about(3, 3, 3, 3)
    assert imported("weight", "2", "", "", "", weight=4)[0] == about(2, 4, 4, 4)
    for header, bad in (
        *(("weight", cell) for cell in ("0", "-1", "10.5", "0.009", "much", "nan", "inf", "1e400")),
        *(("stars", cell) for cell in ("-0.1", "5.5", "five")),
        *(("watched", cell) for cell in ("1.01", "50%")),
    ):
        found, summary = imported(header, bad)
        assert (found[0], summary.rejected) == (2, 1), (header, bad)
    # One star does not make a weak nope.
    import_decisions(db, _file(tmp_path, f"user_id,video_id,decision,stars\n{user},{WORLD.videos[20]},nope,1"))
    assert one(db, of, user, WORLD.videos[20]) == 1
    refresh(db)
    assert_as_rebuilt(db)
