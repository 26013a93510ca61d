"""The demo's data: the same each time, long-tailed, and with tastes that show in the likes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from two_tower.world import HELD_OUT, World, generate

pytestmark = pytest.mark.slow

USERS = VIDEOS = 800


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return generate(tmp_path_factory.mktemp("world"), USERS, VIDEOS, seed=3)


def matrix(world: World, path: Path, kind: str | None = None) -> np.ndarray:
    """[users, videos]: whether the user has a row about the video."""
    rows = pl.read_csv(path)
    if kind:
        rows = rows.filter(decision=kind)
    users = {user: i for i, user in enumerate(world.users)}
    videos = {video: i for i, video in enumerate(world.videos)}
    found = np.zeros((len(users), len(videos)), bool)
    found[[users[user] for user in rows["user_id"]], [videos[video] for video in rows["product_url"]]] = True
    return found


def recall_at_20(score: np.ndarray, known: np.ndarray, held: np.ndarray) -> float:
    top = np.argsort(-np.where(known, -np.inf, score), axis=1)[:, :20]
    hits = np.take_along_axis(held, top, axis=1).sum(axis=1)
    asked = held.any(axis=1)
    return float((hits[asked] / held.sum(axis=1)[asked]).mean())


def test_a_seed_makes_the_same_files_and_another_seed_others(tmp_path: Path) -> None:
    once, again, other = (
        generate(tmp_path / name, 100, 100, seed=seed) for name, seed in (("once", 3), ("again", 3), ("other", 4))
    )
    for name in ("catalog", "decisions", "heldout"):
        assert getattr(again, name).read_bytes() == getattr(once, name).read_bytes()
        assert getattr(other, name).read_bytes() != getattr(once, name).read_bytes()


def test_catalogue_is_complete_and_long_tailed(world: World) -> None:
    catalog = pl.read_csv(world.catalog)
    assert catalog["product_url"].to_list() == world.videos
    assert catalog["title"].null_count() == 0
    for column, distinct in (("tags", 100), ("performers", 200), ("maker", 40), ("series", 60)):
        uses = catalog[column].drop_nulls().str.split("|").explode().value_counts()["count"].to_numpy()
        assert len(uses) >= distinct
        assert uses.max() >= 4 * np.median(uses)


def test_decisions_are_one_per_user_and_video_and_span_eighteen_months(world: World) -> None:
    known = pl.read_csv(world.decisions, try_parse_dates=True)
    held = pl.read_csv(world.heldout, try_parse_dates=True)
    pairs = pl.concat([frame.select("user_id", "product_url") for frame in (known, held)])
    assert pairs.is_duplicated().sum() == 0
    assert set(known["decision"]) == {"like", "nope", "skip"}
    assert 500 < np.ptp(known["created_at"].to_numpy()) / np.timedelta64(1, "D") <= 548
    counts = known.filter(decision="like")["user_id"].value_counts()["count"].to_numpy()
    assert counts.max() > 2.5 * np.median(counts)
    assert len(known) + len(held) == sum(count for kind, count in world.counts.items() if kind != "videos")


def test_held_out_likes_are_everybodys_last(world: World) -> None:
    likes = pl.read_csv(world.decisions).filter(decision="like").group_by("user_id").agg(pl.all(), pl.len())
    held = pl.read_csv(world.heldout).group_by("user_id").agg(pl.col("created_at").min(), pl.len())
    both = likes.join(held, on="user_id", suffix="_held")
    assert (both["created_at"].list.max() <= both["created_at_held"]).all()
    total = both["len"] + both["len_held"]
    assert both["len_held"].to_list() == (total * HELD_OUT).floor().to_list()


def test_tastes_show_in_the_likes(world: World) -> None:
    worth = world.utility - world.utility.mean(axis=1, keepdims=True)
    worth /= worth.std(axis=1, keepdims=True)
    liked, noped, skipped = (worth[matrix(world, world.decisions, kind)].mean() for kind in ("like", "nope", "skip"))
    assert liked > 1.5
    assert noped < skipped - 0.1  # both are of popular videos, and nopes also of videos against the user's taste
    assert noped < 0.2


def test_true_tastes_predict_likes_far_better_than_popularity(world: World) -> None:
    known, held = matrix(world, world.decisions), matrix(world, world.heldout)
    likes = matrix(world, world.decisions, "like").sum(axis=0)
    popularity = recall_at_20(np.broadcast_to(likes, known.shape), known, held)
    ideal = recall_at_20(world.utility, known, held)
    assert popularity > 2 * 20 / VIDEOS
    assert ideal > 3 * popularity
