"""All steps by the command line, with a small world: import, train, evaluate, activate, recommend, export."""

from __future__ import annotations

import csv
import hashlib
import json
import random
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import psycopg
import pytest
from typer.testing import CliRunner

from conftest import NewDatabase, in_database
from test_web import in_node, stored
from two_tower.cli.main import app
from two_tower.server.embedded import Server
from two_tower.world import World, generate
from world_fixtures import Client

USERS, VIDEOS = 300, 300
pytestmark = pytest.mark.xdist_group("path")


def two_tower(dsn: str, *arguments: str | Path, code: int = 0) -> str:
    """Standard output of ``two-tower``, which must exit with ``code``. It runs in this process, since a separate one
    would load PyTorch again for each verb. ``test_docs.py`` runs commands as written."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"DATABASE_URL": dsn})
    assert done.exit_code == code, f"exit {done.exit_code}: {done.output}{done.exception!r}"
    return done.stdout if code == 0 else done.output


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return generate(tmp_path_factory.mktemp("world"), users=USERS, videos=VIDEOS)


@pytest.fixture(scope="module")
def trained(cluster: Server, template: str, world: World) -> Iterator[str]:
    """Name of a database with the world and a trained model ``first``. Nobody may stay connected to it."""
    name = f"trained_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(cluster.dsn, autocommit=True) as connection:
        connection.execute(f"create database {name} template {template}".encode())
    dsn = in_database(cluster.dsn, name)
    two_tower(dsn, "import", "catalog", world.catalog)
    two_tower(dsn, "import", "decisions", world.decisions, "--create-users")
    two_tower(dsn, "train", "--version", "first")
    yield name
    with psycopg.connect(cluster.dsn, autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)".encode())


@pytest.fixture
def ready(cluster: Server, trained: str) -> Iterator[str]:
    """A database of this test's own, like ``trained``."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(cluster.dsn, autocommit=True) as connection:
        connection.execute(f"create database {name} template {trained}".encode())
    yield in_database(cluster.dsn, name)
    with psycopg.connect(cluster.dsn, autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)".encode())


def test_verbs_lead_from_files_to_recommendations(ready: str, world: World, tmp_path: Path) -> None:
    dsn = ready
    (model,) = json.loads(two_tower(dsn, "model", "list", "--json"))
    assert (model["version"], model["state"]) == ("first", "candidate")
    own, popular = model["metrics"]["two-tower"], model["metrics"]["popularity"]
    assert {"random", "item-kNN", "EASE^R"} <= model["metrics"].keys()
    assert own["recall@20"] > 1.5 * popular["recall@20"]
    assert own["ndcg@20"] > 1.5 * popular["ndcg@20"]

    assert json.loads(two_tower(dsn, "evaluate", "--json"))["reasons"] == []
    activated = json.loads(two_tower(dsn, "model", "activate", "--json"))
    assert (activated["model_version"], activated["previous"], activated["changed"]) == ("first", None, True)
    parity = json.loads(two_tower(dsn, "evaluate", "first", "--json"))["parity"]
    assert len(parity) == 4
    assert all(distance is not None and distance <= 1e-3 for distance in parity.values())

    answer = tmp_path / "recs.csv"
    two_tower(dsn, "recommend", "--all", "--limit", "20", "--output", answer)
    with answer.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["user_id", "video_id", "product_url", "score", "rank"]
    by_user: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_user.setdefault(row["user_id"], []).append(row)
    assert len(by_user) == USERS
    known = set(pl.read_csv(world.decisions).select("user_id", "product_url").iter_rows())
    for user, listed in by_user.items():
        assert [int(row["rank"]) for row in listed] == list(range(1, 21))
        assert not {(user, row["product_url"]) for row in listed} & known

    # Better than popularity on likes that the database never saw.
    wanted = pl.read_csv(world.heldout).group_by("user_id").agg("product_url").rows()
    likes = pl.read_csv(world.decisions).filter(pl.col("decision").str.to_lowercase() == "like")
    popularity = (
        likes.group_by("product_url").len().sort("len", "product_url", descending=True)["product_url"].to_list()
    )

    def recall(top: dict[str, list[str]]) -> float:
        return float(np.mean([len(set(top[user]) & set(urls)) / len(urls) for user, urls in wanted]))

    served = {user: [row["product_url"] for row in listed] for user, listed in by_user.items()}
    baseline = {user: [url for url in popularity if (user, url) not in known][:20] for user in by_user}
    assert recall(served) > 1.5 * recall(baseline)

    parquet = tmp_path / "recs.parquet"
    one = next(iter(by_user))
    two_tower(dsn, "recommend", "--user", one, "--limit", "5", "--output", parquet)
    assert pl.read_parquet(parquet)["product_url"].to_list() == served[one][:5]


def test_exported_files_are_complete_and_agree(ready: str, tmp_path: Path) -> None:
    dsn = ready
    two_tower(dsn, "model", "activate")
    two_tower(dsn, "model", "export", tmp_path / "artifacts")
    manifest = json.loads((tmp_path / "artifacts" / "manifest.json").read_text())
    assert manifest["version"] == "first"
    for entry in manifest["files"]:
        content = (tmp_path / "artifacts" / entry["path"]).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (entry["sha256"], entry["bytes"])
    names = {entry["path"] for entry in manifest["files"]}
    assert names >= {
        "user_tower.onnx", "item_tower.onnx", "weights.safetensors", "feature_schema.json", "normalizer.json",
        "vocab_tag.json", "vocab_performer.json", "vocab_video.json", "model_meta.json", "metrics.json",
        "user_embeddings.parquet", "video_embeddings.parquet",
    }  # fmt: skip
    videos = pl.read_parquet(tmp_path / "artifacts" / "video_embeddings.parquet")
    assert videos.columns == ["video_id", "product_url", "embedding"]
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("select video_id::text, embedding::text from video_embeddings").fetchall()
    assert videos.height == len(rows) == VIDEOS
    stored = {video: np.array(json.loads(vector), dtype=np.float32) for video, vector in rows}
    for video, vector in videos.select("video_id", "embedding").iter_rows():
        np.testing.assert_allclose(vector, stored[video], atol=1e-3)


@pytest.mark.soak
def test_a_browser_gives_a_hundred_users_of_the_demo_their_stored_vectors(
    ready: str, tmp_path: Path, node_modules: Path
) -> None:
    two_tower(ready, "model", "activate")
    two_tower(ready, "model", "publish", f"file://{tmp_path}")
    with psycopg.connect(ready, autocommit=True) as connection:
        expected = dict(list(stored(connection, "user").items())[:100])
    assert len(expected) == 100
    with psycopg.connect(ready, user="authenticator") as connection:
        ask = Client(connection).rpc
        payloads = [ask("authenticated", user, "get_user_embedding_features", user_id=user)[0] for user in expected]
    found = in_node(node_modules, tmp_path, payloads, [])["users"]
    assert np.abs(np.array(found) - np.stack(list(expected.values()))).max() <= 2e-3


@pytest.mark.soak
def test_the_same_seed_gives_the_same_model(ready: str) -> None:
    two_tower(ready, "train", "--version", "again")
    query = "select name, count(distinct sha256), count(*) from two_tower.model_files group by name"
    with psycopg.connect(ready) as connection:
        sums = {name: (distinct, files) for name, distinct, files in connection.execute(query)}
    assert sums == dict.fromkeys(("user_tower.onnx", "item_tower.onnx", "weights.safetensors"), (1, 2))


@pytest.mark.soak
def test_reviews_alone_train_a_model_though_reviewers_are_not_users(
    database: NewDatabase, world: World, tmp_path: Path
) -> None:
    dsn = database()
    two_tower(dsn, "import", "catalog", world.catalog)
    stars = {"like": 5, "skip": 3, "nope": 1}
    reviews = pl.read_csv(world.decisions).select(
        "product_url",
        pl.concat_str(pl.lit("reviewer-"), pl.col("user_id").str.head(8)).alias("reviewer_id"),
        pl.col("decision").str.to_lowercase().replace_strict(stars).alias("stars"),
    )
    reviews.write_csv(tmp_path / "reviews.csv")
    two_tower(dsn, "import", "reviews", tmp_path / "reviews.csv")
    trained = json.loads(two_tower(dsn, "train", "--json"))
    assert trained["metrics"]["two-tower"]["recall@20"] > 1.5 * trained["metrics"]["popularity"]["recall@20"]
    two_tower(dsn, "model", "activate")
    status = json.loads(two_tower(dsn, "status", "--json"))
    assert (status["video_vectors"], status["users_with_likes"]) == (VIDEOS, 0)


@pytest.mark.soak
def test_a_model_trained_on_shuffled_likes_fails_the_gate(database: NewDatabase, world: World, tmp_path: Path) -> None:
    dsn = database()
    two_tower(dsn, "import", "catalog", world.catalog)
    decisions = pl.read_csv(world.decisions)
    urls = decisions["product_url"].to_list()
    random.Random(0).shuffle(urls)
    decisions.with_columns(pl.Series("product_url", urls)).unique(["user_id", "product_url"]).write_csv(
        tmp_path / "x.csv"
    )
    two_tower(dsn, "import", "decisions", tmp_path / "x.csv", "--create-users")
    two_tower(dsn, "train")
    assert "falls short" in two_tower(dsn, "evaluate", code=3)


def test_evaluate_names_the_limit_that_is_missed(ready: str) -> None:
    assert "recall@20 is" in two_tower(ready, "evaluate", "--min-recall", "0.99", code=3)


def test_verbs_say_what_data_is_missing(database: NewDatabase, world: World) -> None:
    dsn = database()
    assert "there are no videos" in two_tower(dsn, "train", code=1)
    two_tower(dsn, "import", "catalog", world.catalog)
    assert "there are no likes" in two_tower(dsn, "train", code=1)
    assert "there is no candidate" in two_tower(dsn, "model", "activate", code=1)
    assert "no user" in two_tower(
        dsn, "recommend", "--user", "00000000-0000-0000-0000-000000000000", "--output", "x.csv", code=1
    )


def test_wrong_usage_exits_with_2(database: NewDatabase) -> None:
    dsn = database()
    two_tower(dsn, "recommend", "--output", "x.csv", code=2)
    two_tower(dsn, "train", "--val-ratio", "7", code=2)
    two_tower(dsn, "fly", code=2)
