"""``two-tower train`` on a database: several processes, the split in time, trials, negatives of reviews."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import psycopg
import pytest

from conftest import NewDatabase
from test_gradient import torchrun
from test_path import two_tower
from two_tower.world import World, generate

pytestmark = pytest.mark.xdist_group("train")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return generate(tmp_path_factory.mktemp("world"), users=80, videos=80)


@pytest.fixture
def loaded(database: NewDatabase, world: World) -> str:
    """A database with the world in it."""
    dsn = database()
    two_tower(dsn, "import", "catalog", world.catalog)
    two_tower(dsn, "import", "decisions", world.decisions, "--create-users")
    return dsn


def meta(dsn: str, version: str) -> dict[str, object]:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "select meta -> 'hyperparameters' from two_tower.models where version = %s", (version,)
        ).fetchone()
    assert row is not None
    return dict(row[0])


@pytest.mark.soak
def test_two_processes_register_one_model_the_same_as_one_process(loaded: str) -> None:
    options = ["train", "--split", "temporal", "--epochs", "2", "--json"]
    two = json.loads(torchrun("two_tower", *options, environment={"DATABASE_URL": loaded}))
    with psycopg.connect(loaded) as connection:
        assert connection.execute("select version from two_tower.model_versions").fetchall() == [(two["version"],)]
    one = json.loads(two_tower(loaded, *options))
    assert two["hyperparameters"]["best_epoch"] == one["hyperparameters"]["best_epoch"]
    for name in ("recall@20", "ndcg@20"):
        assert two["metrics"]["two-tower"][name] == pytest.approx(one["metrics"]["two-tower"][name], abs=0.01)

    split_at = meta(loaded, one["version"])["split_at"]
    with psycopg.connect(loaded) as connection:
        row = connection.execute(
            "select avg((created_at >= %s::timestamptz)::int) from public.user_video_decisions "
            "where decision_type <> 'skip'",
            (split_at,),
        ).fetchone()
    assert row is not None
    assert float(row[0]) == pytest.approx(0.2, abs=0.01)


@pytest.mark.soak
def test_trials_and_their_best_are_in_the_models_document(loaded: str, tmp_path: Path) -> None:
    arguments = ("train", "--search", "2", "--search-timeout", "600", "--study", tmp_path / "s.sqlite")
    two_tower(loaded, *arguments, "--version", "tuned")
    found = meta(loaded, "tuned")
    assert (found["search"], found["trials"]) == (2, 2)
    assert str(tmp_path) not in json.dumps(found)
    assert (tmp_path / "s.sqlite").exists()


def test_reviews_without_negatives_use_drawn_ones_and_no_temporal_split(
    database: NewDatabase, world: World, tmp_path: Path
) -> None:
    dsn = database()
    two_tower(dsn, "import", "catalog", world.catalog)
    liked = pl.read_csv(world.decisions).filter(pl.col("decision").str.to_lowercase() == "like")
    liked.select("product_url", pl.col("user_id").alias("reviewer_id"), pl.lit(5).alias("stars")).write_csv(
        tmp_path / "reviews.csv"
    )
    two_tower(dsn, "import", "reviews", tmp_path / "reviews.csv")
    done = json.loads(two_tower(dsn, "train", "--loss", "bce", "--neg-per-pos", "3", "--epochs", "2", "--json"))
    assert done["hyperparameters"]["gradient"]["neg_per_pos"] == 3
    assert done["metrics"]["two-tower"]["recall@20"] > done["metrics"]["popularity"]["recall@20"]
    refused = two_tower(dsn, "train", "--split", "temporal", code=1)
    assert "no point in time" in refused
    assert "--split user" in refused
