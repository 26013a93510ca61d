"""``two-tower train`` on a database: several processes, the split in time, trials, negatives of reviews."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import psycopg
import pytest
from typer.testing import CliRunner

import two_tower.trainer.train as training
from conftest import NewDatabase, in_database
from test_gradient import torchrun
from test_path import two_tower
from two_tower import rows
from two_tower.cli.main import app
from two_tower.errors import UserError
from two_tower.lifecycle import artifacts, registry
from two_tower.trainer import export
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


@pytest.mark.parametrize("verb", ["train", "retrain"])
def test_a_model_that_cannot_be_registered_is_kept_with_the_command_that_registers_it(
    verb: str, loaded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fit, write, trained = training.fit, artifacts._write, list[Any]()
    name = urlsplit(loaded).path.removeprefix("/")

    def allow(allowed: bool) -> None:
        with psycopg.connect(in_database(loaded, "postgres"), autocommit=True) as db:
            db.execute(f"alter database {name} with allow_connections {allowed}".encode())
            db.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))

    def once(*arguments: Any, **options: Any) -> Any:
        trained[:] = trained or [fit(*arguments, **options)]
        return trained[0]

    def gone(*arguments: Any, **options: Any) -> Any:
        once(*arguments, **options)
        allow(False)
        return trained[0]

    def cut(connection: psycopg.Connection[Any], *_: Any, **__: Any) -> None:
        connection.execute("select pg_terminate_backend(pg_backend_pid())")

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def full(path: Path, content: bytes) -> Path:
        if path.is_relative_to(tmp_path) and path.name == artifacts.MANIFEST:
            raise UserError(f"cannot write {path}: No space left on device")
        return write(path, content)

    def homeless(connection: psycopg.Connection[Any], *_: Any, **__: Any) -> None:
        (tmp_path / "removed").mkdir()
        os.chdir(tmp_path / "removed")
        (tmp_path / "removed").rmdir()
        cut(connection)

    faults: list[tuple[Any, str, Any, str, bool]] = [
        (registry, "register_files", homeless, "terminating connection", False),
        (training, "fit", gone, "not currently accepting connections|terminating connection", True),
        (registry, "register_files", cut, "terminating connection", True),
        (registry, "register_files", interrupted, "KeyboardInterrupt", True),
        (artifacts, "_write", full, "terminating connection", False),
        # As with more than two million videos: no tower fits a file.
        (export, "LARGEST", 10, "terminating connection", True),
    ]
    with psycopg.connect(loaded) as db:
        db.execute("update two_tower.settings set value = '\"auto\"' where name = 'inference_engine'")
    for module, function, fault, reason, here in faults:
        with monkeypatch.context() as patch:
            patch.setattr(training, "fit", once)
            patch.setattr(registry, "register_files", cut)
            patch.setattr(module, function, fault)
            done = CliRunner().invoke(app, [verb, "--dsn", loaded], env={"COLUMNS": "1000"})
        allow(True)
        os.chdir(tmp_path)
        assert done.exit_code == 1, reason
        said = re.search(
            rf"error: \S+ is trained, but was not registered: .*({reason}).*; its files are in (\S+)\n"
            "hint: two-tower (.*)",
            done.output,
        )
        assert said, done.output
        directory = Path(said[2])
        assert list(tmp_path.glob("two-tower-*")) == ([directory] if here else [])
        with psycopg.connect(loaded, autocommit=True) as db:
            assert rows.one(db, "select count(*) from two_tower.model_versions") == 0
            for answer in ("is registered", "was registered already"):
                again = CliRunner().invoke(app, shlex.split(said[3]))
                assert (again.exit_code, answer in again.output) == (0, True), again.output
            metrics = rows.one(db, "select metrics - 'parity' from two_tower.models")
            assert metrics == registry.plain(trained[0].metrics)
            db.execute("delete from two_tower.model_versions")
        shutil.rmtree(directory)


def test_the_command_for_a_kept_model_has_no_password_and_no_name_that_was_taken_meanwhile(
    loaded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    register = registry.register_files

    def raced(*arguments: Any, vocabularies: dict[str, list[str]], **documents: Any) -> None:
        register(*arguments, vocabularies=vocabularies | {"tag": vocabularies["tag"][::-1]}, **documents)
        register(*arguments, vocabularies=vocabularies, **documents)

    train = ["train", "--version", "friday", "--dsn", f"{loaded}&password=se%20cret&application_name=an%20app"]
    with monkeypatch.context() as patch:
        patch.setattr(registry, "register_files", raced)
        done = CliRunner().invoke(app, train)
    assert done.exit_code == 1
    assert "error: friday is trained, but was not registered: model version friday is registered already" in done.output
    assert "the command has no password, which PGPASSWORD or a password file can give\nhint: " in done.output
    assert "cret" not in done.output
    again = CliRunner().invoke(app, shlex.split(done.output.split("hint: two-tower ")[1]))
    assert (again.exit_code, "is registered" in again.output) == (0, True), again.output
    with psycopg.connect(loaded) as db:
        assert rows.one(db, "select count(*) from two_tower.model_versions") == 2


def test_a_model_that_can_neither_be_registered_nor_written_is_reported_with_both_reasons(
    loaded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write = artifacts._write

    def failing(*_: Any) -> None:
        raise MemoryError

    def partly(path: Path, content: bytes) -> Path:
        if path.name == artifacts.MANIFEST:
            raise KeyboardInterrupt
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(registry, "contents", failing)
        done = CliRunner().invoke(app, ["train", "--dsn", loaded])
    assert done.exit_code == 1
    assert "was not registered: MemoryError; nor could its files be written: MemoryError" in done.output
    monkeypatch.setattr(registry, "register_files", failing)
    monkeypatch.setattr(artifacts, "_write", partly)
    assert CliRunner().invoke(app, ["train", "--dsn", loaded]).exit_code == 130
    assert list(tmp_path.iterdir()) == []
