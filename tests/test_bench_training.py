"""The benchmark of training: its generated data, and its report."""

from __future__ import annotations

import json
import math
from uuid import UUID

import numpy as np
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from scipy import sparse
from typer.testing import CliRunner

from two_tower.bench import training
from two_tower.bench.common import new_database
from two_tower.bench.training import Scale, Trained, figures, likes_of, measured
from two_tower.cli.main import app
from two_tower.errors import UserError
from two_tower.server.embedded import Server
from two_tower.trainer import evaluate
from world_fixtures import one

TOY = Scale(users=300, videos=200, likes=6_000)


def drawn(scale: Scale, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    user, video, seconds = (np.concatenate(part) for part in zip(*likes_of(scale, seed), strict=True))
    return user, video, seconds


@pytest.mark.parametrize(
    "scale",
    [
        TOY,
        Scale(users=25_000, videos=1_000, likes=300_000),  # more than one block of users
        Scale(users=100, videos=100, likes=500),
        Scale(users=1_000, videos=50_000, likes=20_000),
    ],
)
def test_generated_likes_are_distinct_ordered_and_of_the_requested_number(scale: Scale) -> None:
    user, video, seconds = drawn(scale)
    assert 0.8 * scale.likes < len(user) < 1.1 * scale.likes
    assert (np.diff(user) >= 0).all()
    assert 0 <= user.min() <= user.max() < scale.users
    assert 0 <= video.min() <= video.max() < scale.videos
    assert len(np.unique(user * scale.videos + video)) == len(user)
    assert seconds.min() >= 25 * training.YEAR
    assert all(np.array_equal(one, other) for one, other in zip(drawn(scale), (user, video, seconds), strict=True))
    assert not np.array_equal(drawn(scale, seed=1)[1], video)


def test_taste_predicts_generated_likes_better_than_popularity() -> None:
    """Videos liked together predict more than popularity, and popularity more than chance."""
    scale = Scale(users=1_000, videos=400, likes=20_000)
    user, video, _ = drawn(scale)
    held = np.random.default_rng(0).random(len(user)) < 0.2
    known, wanted = (
        sparse.csr_matrix(
            (np.ones(int(where.sum()), np.float32), (user[where], video[where])), (scale.users, scale.videos)
        )
        for where in (~held, held)
    )
    scorers = (evaluate.by_item_knn(known), evaluate.by_popularity(known), evaluate.by_chance(scale.videos))
    knn, popular, chance = (evaluate.rank(each, wanted, known, auc=False).mean()["ndcg@20"] for each in scorers)
    assert knn > 1.3 * popular
    assert popular > 2 * chance


def test_a_small_training_yields_every_figure(cluster: Server, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process; a separate one takes seconds to load torch."""
    monkeypatch.setattr(training, "new_database", lambda server, name: new_database(server, name, template))
    monkeypatch.setattr(training, "DATABASE", "bench_training_toy")
    monkeypatch.setattr(training, "train", measured)
    try:
        rows, words = training.run(cluster, TOY, lambda what, share: None)
        with psycopg.connect(make_conninfo(cluster.dsn, dbname=training.DATABASE), autocommit=True) as db:
            assert one(db, "select count(*) from public.user_video_decisions") > 0.8 * TOY.likes
            assert one(db, "select count(*) from two_tower.user_change_log") == 0, "nobody refreshes this"
            video = one(db, "select id from public.videos where product_url = 'https://videos.example/7'")
            assert UUID(bytes=bytes(training._ids("video", 8)[7])) == video
    finally:
        with psycopg.connect(cluster.dsn, autocommit=True) as db:
            db.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(training.DATABASE)))
    by_name = {row.figure: row for row in rows}
    assert list(by_name) == [
        "training_minutes", "training_peak_gb", "ndcg_vs_item_knn", "ndcg_vs_popularity", "recall_vs_item_knn",
        "recall_vs_popularity",
    ]  # fmt: skip
    assert all(math.isfinite(row.value) and row.value > 0 for row in rows)
    assert by_name["training_peak_gb"].value < 8
    assert by_name["ndcg_vs_popularity"].value > by_name["ndcg_vs_popularity"].baseline  # type: ignore[operator]
    assert words[0].startswith("reading: until ")
    assert words[-1].startswith("chosen: together ")
    json.dumps([row.as_dict() for row in rows], allow_nan=False)


def test_figures_are_reported_beside_their_baselines() -> None:
    metrics = {
        name: {"ndcg@20": value, "recall@20": 2 * value}
        for name, value in (("two-tower", 0.3), ("item-kNN", 0.2), ("popularity", 0.0))
    }
    found = Trained(10.0, 4.0, 2.0, metrics, [("reading", 4.0, 1.0)], {"together": 1.0})
    rows = {row.figure: row for row in figures(found, 2**30)}
    assert rows["training_minutes"].ratio == pytest.approx(2.5)
    assert rows["training_peak_gb"].baseline == training.LIKE_BYTES
    assert rows["ndcg_vs_item_knn"].ratio == pytest.approx(1.5)
    assert rows["recall_vs_item_knn"].value == pytest.approx(0.6)
    assert rows["ndcg_vs_popularity"].ratio is None, "nothing is so many times nothing"
    assert found.said() == ["reading: until 4.0 min, peak 1.00 GB", "chosen: together 1"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SystemExit('no room left')", "the training failed: no room left"),
        ("import os; os.kill(os.getpid(), 9)", "it was killed, as a rule for want of memory"),
        ("import sys; print('step [\"here\", 0.5]', file=sys.stderr); sys.exit('then not')", "then not"),
    ],
)
def test_a_training_that_fails_says_why(code: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_TRAIN", code)
    with pytest.raises(UserError, match=message):
        training.train("", lambda what, share: None)


@pytest.mark.soak
@pytest.mark.database
def test_the_verb_trains_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    # The verb generates likes for at most a twentieth of all pairs of a user and a video.
    monkeypatch.setattr(Scale, "quick", lambda: Scale(users=300, videos=400, likes=6_000))
    result = CliRunner().invoke(app, ["bench", "training", "--quick", "--json"])
    assert result.exit_code == 0, result.output
    found = {row["figure"]: row for row in json.loads(result.stdout)}
    assert 0.1 < found["training_peak_gb"]["value"] < 3
    assert "searching: until" in result.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--likes", "10"),
        ("--users", "1"),
        ("--videos", "1"),
        ("--users", "1000", "--videos", "1000", "--likes", "60000"),
    ],
)
def test_impossible_sizes_of_the_generated_data_are_refused(
    options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it must not begin")

    monkeypatch.setattr(training, "run", never)
    assert CliRunner().invoke(app, ["bench", "training", *options]).exit_code == 2
