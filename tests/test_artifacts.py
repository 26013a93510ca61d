"""Exported files: they are verified, complete or refused, and give the same recommendations in another database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import obstore
import obstore.store
import onnxruntime
import psycopg
import pytest
from moto.server import ThreadedMotoServer
from psycopg.types.json import Jsonb
from safetensors.numpy import load as load_tensors
from typer.testing import CliRunner

from conftest import Connection, NewDatabase, Prepared
from two_tower.cli.main import app
from two_tower.errors import UserError
from two_tower.features import VOCABULARIES
from two_tower.lifecycle import artifacts, gate, registry
from two_tower.trainer.export import export_towers
from world_fixtures import TinyModel, load, make_world, one, random_model, refresh, register, schema_of, tiny_model

pytestmark = pytest.mark.world

Publish = Callable[[str], str]
WORLD = make_world()


def quiet(what: str, share: float) -> None:
    pass


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 server on this machine, with its credentials in the environment; the name of its bucket."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "something")
        patch.setenv("AWS_REGION", "us-east-1")
        httpx2.put(f"http://{host}:{port}/models").raise_for_status()
        yield "models"
    server.stop()


both = pytest.mark.parametrize("url", ["file", "s3"], indirect=True)
"""For tests of the store itself; the others use a bucket only in ``make soak``."""


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.soak)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place to publish to."""
    if request.param == "file":
        return f"file://{tmp_path}/published%20models"
    return f"s3://{request.getfixturevalue('s3')}/{tmp_path.name}"


def fill(db: Connection) -> None:
    load(db, WORLD)
    refresh(db)


@pytest.fixture
def other(database: NewDatabase, template: str, prepared: Prepared) -> Iterator[Connection]:
    """A database with the same world and without any model."""
    with psycopg.connect(database(template=prepared(template, fill)), autocommit=True) as connection:
        yield connection


def recommendations(db: Connection) -> list[Any]:
    query = "select user_id, video_id, score, rank from two_tower.recommend_batch(%s, 20) order by user_id, rank"
    return db.execute(query, (WORLD.users,)).fetchall()


def versions(db: Connection) -> dict[str, str]:
    return dict(db.execute("select version, state from two_tower.models").fetchall())


def names(url: str) -> set[str]:
    store = artifacts._store(url)
    return {entry["path"] for batch in obstore.list(store) for entry in batch}


def current(url: str) -> str | None:
    found = artifacts._get(artifacts._store(url), url, artifacts.CURRENT)
    return None if found is None else str(json.loads(found)["version"])


# ------------------------------------------------------------------------------------------------ export and import


@both
def test_a_published_model_recommends_the_same_in_another_database(db: Connection, url: str, other: Connection) -> None:
    done = artifacts.publish(db, "v1", url, quiet)
    assert done == {"version": "v1", "url": url, "uploaded": len(PUBLISHED), "current": True}
    assert current(url) == "v1"
    assert artifacts.fetch(other, url, None, quiet) == {"version": "v1", "url": url, "registered": True}
    registry.activate(other, "v1", quiet)
    registry.refresh(db, quiet)
    assert recommendations(other) == recommendations(db)
    documents = "select feature_schema, normalizer, metrics, meta from two_tower.model_documents"
    assert other.execute(documents).fetchone() == db.execute(documents).fetchone()


@both
def test_publishing_or_fetching_a_version_again_changes_nothing(db: Connection, url: str, other: Connection) -> None:
    artifacts.publish(db, "v1", url, quiet)
    before = names(url)
    assert artifacts.publish(db, "v1", url, quiet)["uploaded"] == 0
    assert names(url) == before
    assert artifacts.fetch(other, url, "v1", quiet)["registered"]
    assert not artifacts.fetch(other, url, "v1", quiet)["registered"]
    assert versions(other) == {"v1": "candidate"}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["current", "Current", "CURRENT"])
def test_no_version_may_have_the_name_of_the_pointer(
    db: Connection, url: str, other: Connection, tmp_path: Path, name: str
) -> None:
    artifacts.publish(db, "v1", url, quiet)
    before = {path: artifacts._get(artifacts._store(url), url, path) for path in names(url)}
    exported = tmp_path / "exported"
    artifacts.export(db, "v1", exported)
    refused = f"no model version can be called {name}"
    with pytest.raises(UserError, match=refused):
        artifacts.register(other, exported, name)
    with pytest.raises(UserError, match=refused):
        artifacts.fetch(other, url, name, quiet)
    # A manifest with that version, in a directory or as the current one of a store.
    manifest = json.loads((exported / "manifest.json").read_text()) | {"version": name}
    (exported / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=refused):
        artifacts.register(other, exported)
    with pytest.raises(UserError, match=refused):
        artifacts.publish(db, name, url, quiet)
    assert {path: artifacts._get(artifacts._store(url), url, path) for path in names(url)} == before
    obstore.put(artifacts._store(url), artifacts.CURRENT, json.dumps(manifest).encode())
    with pytest.raises(UserError, match=refused):
        artifacts.fetch(other, url, None, quiet)
    assert versions(other) == {}


@pytest.mark.parametrize(
    ("version", "reason"),
    [("Current", "no model version can be called Current"), ("v1", "there is a model version v1 already")],
)
def test_a_reserved_or_taken_version_is_refused_before_anything_is_trained(
    version: str, reason: str, db: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("two_tower.trainer.dataset.read", lambda *_: pytest.fail("it began to read"))
    done = CliRunner().invoke(app, ["train", "--version", version, "--dsn", dsn])
    assert isinstance(done.exception, UserError) or done.exit_code == 1
    assert reason in (done.output + str(done.exception))


def test_current_follows_the_latest_publication_and_versions_stay(db: Connection, url: str, other: Connection) -> None:
    artifacts.publish(db, "v1", url, quiet)
    tiny_model(db, "v2", seed=2)
    artifacts.publish(db, "v2", url, quiet)
    assert current(url) == "v2"
    assert artifacts.fetch(other, url, "v1", quiet)["version"] == "v1"
    assert artifacts.fetch(other, url, None, quiet)["version"] == "v2"
    artifacts.publish(db, "v1", url, quiet)
    assert current(url) == "v1"


def test_a_refresh_does_not_change_published_files(db: Connection, url: str) -> None:
    artifacts.publish(db, "v1", url, quiet)
    db.execute("delete from public.user_video_decisions where user_id = %s", (WORLD.usual,))
    refresh(db)
    assert artifacts.publish(db, "v1", url, quiet)["uploaded"] == 0


def test_a_published_version_is_not_replaced_by_another_model(db: Connection, url: str, other: Connection) -> None:
    artifacts.publish(db, "v1", url, quiet)
    register(other, random_model(schema_of(other), seed=5), "v1")
    with pytest.raises(UserError, match="another model is published as v1"):
        artifacts.publish(other, "v1", url, quiet)
    assert current(url) == "v1"


def test_exported_files_register_under_another_name(db: Connection, tmp_path: Path) -> None:
    artifacts.export(db, "v1", tmp_path)
    assert artifacts.register(db, tmp_path) == ("v1", False)
    assert artifacts.register(db, tmp_path, "v1.again") == ("v1.again", True)
    meta = one(db, "select meta from two_tower.models where version = 'v1.again'")
    assert (meta["version"], meta["lineage"]["registered_from"]) == ("v1.again", "v1")


def run(dsn: str, *words: str, code: int = 0) -> dict[str, Any]:
    """What ``two-tower model WORDS --json`` prints."""
    done = CliRunner().invoke(app, ["model", *words, "--dsn", dsn, "--json"])
    assert done.exit_code == code, (done.output, done.exception)
    return dict(json.loads(done.stdout)) if done.stdout else {}


@pytest.mark.sampled(1)
def test_verbs_publish_fetch_export_register_activate_and_roll_back(
    db: Connection, dsn: str, url: str, other: Connection, tmp_path: Path
) -> None:
    target = other.info.dsn
    assert run(dsn, "publish", url)["version"] == "v1"
    assert run(target, "fetch", url)["registered"]
    assert run(target, "activate", "--workers", "2")["model_version"] == "v1"
    directory = str(tmp_path / "files")
    run(dsn, "export", directory)
    assert run(target, "register", directory, "--version", "again") == {"version": "again", "registered": True}
    assert run(target, "activate", "again")["previous"] == "v1"
    assert run(target, "rollback")["model_version"] == "v1"
    # From now on, a new version must be 1.5 times as good.
    other.execute("update two_tower.settings set value = '-0.5' where name = 'gate_max_drop'")
    run(target, "register", directory, "--version", "not.better")
    run(target, "activate", "not.better", code=3)
    run(target, "register", directory, "--version", "forced")
    assert run(target, "activate", "forced", "--force")["forced"]
    run(target, "activate", "nothing", code=1)
    assert versions(other) == {"v1": "standby", "again": "standby", "not.better": "rejected", "forced": "active"}


# ------------------------------------------------------------------------------ files that are not stored


def register_as_trained(db: Connection, version: str, seed: int = 0) -> TinyModel:
    """Registers as ``two-tower train`` does: by the program, which writes the rows."""
    model = random_model(schema_of(db), seed=seed)
    registry.register_files(
        db,
        version,
        (model.user_graph, model.item_graph, model.weights),
        feature_schema=model.feature_schema,
        normalizer={},
        vocabularies=model.vocabularies,
        metrics=model.metrics or {},
        meta={"version": version, "sizes": registry.sizes(model.schema)},
    )
    return model


def stored(db: Connection, version: str) -> set[str]:
    return {n for (n,) in db.execute("select name from two_tower.model_files where model_version = %s", (version,))}


def limits(model: TinyModel) -> list[int]:
    """A limit below each size, and one above all of them."""
    sizes = sorted({len(model.user_graph), len(model.item_graph), len(model.weights)})
    return [0, *(size - 1 for size in sizes), sizes[-1]]


@pytest.mark.soak
def test_a_file_over_the_size_limit_is_kept_as_rows(db: Connection, other: Connection, tmp_path: Path) -> None:
    model = random_model(schema_of(db), seed=3)
    by_name = dict(zip(registry.FILES, (model.user_graph, model.item_graph, model.weights), strict=True))
    db.execute("update two_tower.settings set value = '\"auto\"' where name = 'inference_engine'")
    for at, limit in enumerate(limits(model)):
        version = f"limit{at}"
        db.execute("update two_tower.settings set value = %s where name = 'model_max_bytes'", (Jsonb(limit),))
        register_as_trained(db, version, seed=3)
        small = {name for name, content in by_name.items() if len(content) <= limit}
        assert stored(db, version) == small
        assert one(db, "select user_engine from two_tower.model_versions where version = %s", version) == "sql"
        registry.activate(db, version, quiet)
        measured = gate.measure(db, version)
        assert gate.judge(db, version, measured.numbers()) == []
        assert all(distance is not None and distance < 1e-5 for distance in measured.parity.values()), measured.parity
        # All documented files, whatever is stored, with the same towers.
        directory = tmp_path / version
        assert {path.name for path in artifacts.export(db, version, directory)} == set(PUBLISHED)
        for name in small:
            assert (directory / name).read_bytes() == by_name[name]
        expected = load_tensors(model.weights)
        found = load_tensors((directory / "weights.safetensors").read_bytes())
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            assert np.allclose(tensor, found[name], rtol=1e-6, atol=0), name
        # They are recognised as the same model, whatever the limit is now, here and in another database.
        db.execute("update two_tower.settings set value = '1e9' where name = 'model_max_bytes'")
        assert artifacts.register(db, directory) == (version, False)
        assert artifacts.register(other, directory) == (version, True)
        assert stored(other, version) == set(registry.FILES)
    assert versions(other).keys() == {f"limit{at}" for at in range(len(limits(model)))}


def test_another_model_is_not_mistaken_for_one_stored_as_rows(db: Connection) -> None:
    db.execute("update two_tower.settings set value = '\"auto\"' where name = 'inference_engine'")
    db.execute("update two_tower.settings set value = '0' where name = 'model_max_bytes'")
    register_as_trained(db, "rows", seed=3)
    register_as_trained(db, "rows", seed=3)
    with pytest.raises(psycopg.errors.UniqueViolation, match="registered already, with other content"):
        register_as_trained(db, "rows", seed=4)


def test_onnxruntime_requires_files_within_the_size_limit(db: Connection) -> None:
    db.execute("update two_tower.settings set value = '\"onnxruntime\"' where name = 'inference_engine'")
    db.execute("update two_tower.settings set value = '0' where name = 'model_max_bytes'")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="more than the 0 allowed"):
        register_as_trained(db, "rows")


def test_exporting_a_version_without_weights_says_so(db: Connection, tmp_path: Path) -> None:
    db.execute("update two_tower.settings set value = '\"auto\"' where name = 'inference_engine'")
    db.execute("update two_tower.settings set value = '0' where name = 'model_max_bytes'")
    register_as_trained(db, "rows")
    registry.activate(db, "rows", quiet)
    registry.activate(db, "v1", quiet)
    db.execute("select two_tower.retire_model('rows')")
    with pytest.raises(UserError, match="has no weights in this database"):
        artifacts.export(db, "rows", tmp_path)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("most", [0, 1, 40, 10_000])
def test_a_smaller_vocabulary_leaves_the_model_of_those_videos_unchanged(
    db: Connection, other: Connection, tmp_path: Path, most: int, kept: bool
) -> None:
    db.execute("update two_tower.settings set value = '\"auto\"' where name = 'inference_engine'")
    db.execute("update two_tower.settings set value = %s where name = 'model_max_bytes'", (Jsonb(10**9 * kept),))
    model = register_as_trained(db, "whole")
    registry.activate(db, "whole", quiet)
    artifacts.export(db, "whole", tmp_path / "whole")
    artifacts.export(db, "whole", tmp_path / "less", most)
    videos = model.vocabularies["video"][:most]
    document = {name: json.loads((tmp_path / "less" / name).read_text()) for name in artifacts.DOCUMENTS}
    vocabulary = json.loads((tmp_path / "less" / "vocab_video.json").read_text())
    assert vocabulary == {key: at for at, key in enumerate(videos)}
    runs = {s["name"]: s for s in document["feature_schema.json"]["user"]["segments"]}
    assert runs["liked_video_ids"]["size"] == len(videos)
    assert runs["liked_tags"]["size"] == len(model.vocabularies["tag"])
    assert document["model_meta.json"]["sizes"]["vocabularies"]["video"] == len(videos)
    sizes = [(tmp_path / name / "user_tower.onnx").stat().st_size for name in ("whole", "less")]
    assert (sizes[1] < sizes[0]) == (len(videos) < len(model.vocabularies["video"]))
    # Vectors of videos are those of the version; so are those of users with decisions only on these videos.
    pairs = [(tmp_path / name / "video_embeddings.parquet").read_bytes() for name in ("whole", "less")]
    assert pairs[0] == pairs[1]
    counts = np.zeros((1, document["feature_schema.json"]["user"]["dim"]), dtype=np.float32)
    whole = np.zeros((1, model.feature_schema["user"]["dim"]), dtype=np.float32)
    before = {s["name"]: s for s in model.feature_schema["user"]["segments"]}
    for at, name in enumerate(("numeric", "liked_tags", "liked_makers", "liked_video_ids", "noped_video_ids")):
        for index in range(min(3, runs[name]["size"])):
            counts[0, runs[name]["offset"] + index] = whole[0, before[name]["offset"] + index] = 1 + at
    vectors = [
        onnxruntime.InferenceSession(tmp_path / name / "user_tower.onnx").run(None, {"user_features": given})[0]
        for name, given in (("whole", whole), ("less", counts))
    ]
    assert np.allclose(vectors[0], vectors[1], atol=1e-6)
    # It can be registered like any model, under another name.
    assert artifacts.register(other, tmp_path / "less", "small") == ("small", True)


def test_export_prints_the_size_of_a_large_model_for_browsers(
    db: Connection, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(random_model(schema_of(db)).user_graph)
    for limit, said in ((size - 1, True), (size * 2, False)):
        monkeypatch.setattr(artifacts, "MUCH_FOR_A_BROWSER", limit)
        done = CliRunner().invoke(app, ["model", "export", str(tmp_path), "--dsn", dsn])
        assert ("--max-video-features N writes a smaller one" in done.output) == said
    done = CliRunner().invoke(app, ["model", "export", str(tmp_path), "--dsn", dsn, "--max-video-features", "3"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "user_tower.onnx").stat().st_size < size


def test_a_tower_too_large_for_a_file_is_registered_as_rows(
    db: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like one of more than two million videos, with a limit of a few bytes."""
    monkeypatch.setattr("two_tower.trainer.export.LARGEST", 10)
    db.execute("update two_tower.settings set value = '\"auto\"' where name = 'inference_engine'")
    model = random_model(schema_of(db))
    files = export_towers(model.user_tower, model.item_tower)
    assert files[:2] == (None, None)
    sample = registry.parity_sample(model.schema, (model.user_tower, None), (model.item_tower, None))
    registry.register_files(
        db,
        "rows",
        files,
        feature_schema=model.feature_schema,
        normalizer={},
        vocabularies=model.vocabularies,
        metrics=(model.metrics or {}) | {"parity": sample},
        meta={},
    )
    assert stored(db, "rows") == {"weights.safetensors"}
    registry.activate(db, "rows", quiet)
    with pytest.raises(UserError, match=r"larger than an ONNX file can be"):
        artifacts.export(db, "rows", tmp_path)


# ------------------------------------------------------------------------------------------------ failures


DAMAGED = (
    "user_tower.onnx", "item_tower.onnx", "weights.safetensors", "feature_schema.json", "vocab_tag.json",
    "metrics.json", "video_embeddings.parquet",
)  # fmt: skip


def test_a_damaged_file_is_refused_and_leaves_nothing(db: Connection, tmp_path: Path, other: Connection) -> None:
    url = f"file://{tmp_path}"
    artifacts.publish(db, "v1", url, quiet)
    for name in DAMAGED:
        path = tmp_path / "v1" / name
        sound = path.read_bytes()
        flipped = bytearray(sound)
        flipped[len(flipped) // 2] ^= 1
        for damaged in (bytes(flipped), sound[:-1], sound + b"0", b"", None):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            with pytest.raises(UserError, match=name):
                artifacts.fetch(other, url, None, quiet)
            with pytest.raises(UserError, match=name):
                artifacts.register(other, tmp_path / "v1")
        path.write_bytes(sound)
    assert versions(other) == {}
    artifacts.fetch(other, url, None, quiet)


@pytest.mark.parametrize(
    "manifest",
    [
        b"", b"[]", b"{}", b'{"version": "v1"}', b'{"version": "../v1", "files": []}',
        b'{"version": "v1", "files": [{"path": "../../passwd", "bytes": 1, "sha256": "x"}]}',
        b'{"version": "v1", "files": [{"path": "/etc/passwd", "bytes": 1, "sha256": "x"}]}',
        b'{"version": "v1", "files": [{"path": "a", "bytes": "1", "sha256": "x"}]}',
    ],
)  # fmt: skip
def test_an_invalid_manifest_is_refused(manifest: bytes, tmp_path: Path, other: Connection) -> None:
    (tmp_path / "current").mkdir()
    (tmp_path / "current" / "manifest.json").write_bytes(manifest)
    with pytest.raises(UserError, match="manifest"):
        artifacts.fetch(other, f"file://{tmp_path}", None, quiet)


@pytest.mark.parametrize("url", ["ftp://x/y", "file://host/x", "file:///", "s3://", "/tmp/x", "x"])
def test_an_unknown_kind_of_url_is_an_error(url: str, db: Connection) -> None:
    with pytest.raises(UserError, match="models cannot be published to"):
        artifacts.publish(db, "v1", url, quiet)


@both
def test_fetching_where_nothing_is_published_is_an_error(url: str, db: Connection) -> None:
    with pytest.raises(UserError, match=r"there is no current/manifest\.json"):
        artifacts.fetch(db, url, None, quiet)


def test_a_missing_bucket_is_an_error(s3: str, db: Connection) -> None:
    with pytest.raises(UserError, match="s3://nowhere"):
        artifacts.publish(db, "v1", "s3://nowhere/models", quiet)


def test_empty_variables_count_as_unset(s3: str, db: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", os.environ["AWS_ENDPOINT_URL"])
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_SESSION_TOKEN", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST"):
        monkeypatch.setenv(name, "")
    with pytest.raises(UserError, match=r"there is no current/manifest\.json"):
        artifacts.fetch(db, f"s3://{s3}/empty", None, quiet)


KILLED = """
import os, signal, sys
import psycopg
from two_tower.lifecycle import artifacts

dsn, url, at = sys.argv[1:]

def die(what, share):
    if what == at:
        os.kill(os.getpid(), signal.SIGKILL)

with psycopg.connect(dsn, autocommit=True) as connection:
    {call}
"""
PUBLISHED = [
    "feature_schema.json", "item_tower.onnx", "manifest.json", "metrics.json", "model_meta.json", "normalizer.json",
    "user_tower.onnx", "video_embeddings.parquet",
    *(f"vocab_{name}.json" for name in VOCABULARIES),
    "weights.safetensors",
]  # fmt: skip


def killed(call: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED.format(call=call), *arguments], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL


@both
def test_publishing_writes_the_files_of_the_contract(db: Connection, url: str) -> None:
    artifacts.publish(db, "v1", url, quiet)
    assert names(url) == {f"{place}/{name}" for name in PUBLISHED for place in ("v1", "current")}


def same_there(url: str) -> None:
    """``current`` has the files of the version that its manifest names, and no others."""
    store = artifacts._store(url)
    manifest = json.loads(bytes(obstore.get(store, artifacts.CURRENT).bytes()))
    listed = {entry["path"] for entry in manifest["files"]} | {"manifest.json"}
    assert {name.removeprefix("current/") for name in names(url) if name.startswith("current/")} == listed
    for name in listed:
        there, own = (bytes(obstore.get(store, f"{at}/{name}").bytes()) for at in ("current", manifest["version"]))
        assert there == own, name


@both
def test_current_is_a_complete_copy_and_moves_only_on_activation(
    db: Connection, dsn: str, url: str, other: Connection
) -> None:
    run(dsn, "publish", url, "--with-users")
    assert "current/user_embeddings.parquet" in names(url)
    same_there(url)
    register(db, random_model(schema_of(db), seed=2), "v2")
    assert run(dsn, "publish", url, "--version", "v2", "--skip-activate")["current"] is False
    assert current(url) == "v1"
    same_there(url)
    assert run(dsn, "publish", url, "--version", "v2") == {
        "version": "v2", "url": url, "uploaded": 0, "current": True,
    }  # fmt: skip
    assert current(url) == "v2"
    same_there(url)  # v1's vectors of users are no longer there
    assert run(other.info.dsn, "fetch", url)["version"] == "v2"


@pytest.mark.sampled(1)
@pytest.mark.parametrize("fails_at", ["item_tower.onnx", "vocab_tag.json", "manifest.json"])
def test_a_failed_copy_leaves_the_current_version_complete(
    fails_at: str, db: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/models"
    artifacts.publish(db, "v1", url, quiet)
    register(db, random_model(schema_of(db), seed=2), "v2")
    artifacts.publish(db, "v2", url, quiet, activate=False)
    with monkeypatch.context() as patch:

        def failing(name: str, whole: Callable[..., Any]) -> Callable[..., Any]:
            def call(store: Any, *arguments: Any, **options: Any) -> Any:
                if f"current/{fails_at}" in arguments and "v1" not in str(arguments[0]):
                    raise OSError(28, "No space left on device")
                return whole(store, *arguments, **options)

            return call

        for name in ("copy", "put"):
            patch.setattr(obstore, name, failing(name, getattr(obstore, name)))
        with pytest.raises(UserError, match="No space left"):
            artifacts.publish(db, "v2", url, quiet)
    assert current(url) == "v1"
    same_there(url)
    artifacts.publish(db, "v2", url, quiet)
    assert current(url) == "v2"
    same_there(url)


@both
def test_the_runtime_for_browsers_is_published_beside_the_model(
    db: Connection, dsn: str, url: str, other: Connection, tmp_path: Path
) -> None:
    dist = tmp_path / "dist"
    dist.mkdir()
    for name in ("ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.mjs", "ort.min.js", "README.md"):
        (dist / name).write_text(f"this is {name}")
    run(dsn, "publish", url, "--wasm", str(dist))
    beside = {"ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.mjs"}
    assert names(url) == {f"{place}/{name}" for name in {*PUBLISHED, *beside} for place in ("v1", "current")}
    same_there(url)
    if url.startswith("s3:"):
        for place in ("v1", "current"):
            found = obstore.get(artifacts._store(url), f"{place}/ort-wasm-simd-threaded.wasm")
            assert found.attributes["Content-Type"] == "application/wasm"
    # It is no part of the model: another release of it does not make another model.
    (dist / "ort-wasm-simd-threaded.wasm").write_text("a newer one")
    assert run(dsn, "publish", url, "--wasm", str(dist))["uploaded"] == 0
    assert run(other.info.dsn, "fetch", url)["registered"]
    run(dsn, "publish", url, "--wasm", str(tmp_path), code=1)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "at", ["uploading user_tower.onnx", "uploading weights.safetensors", "uploading manifest.json", "moving current"]
)
def test_a_publish_killed_at_any_file_leaves_current_as_it_was(
    at: str, db: Connection, dsn: str, url: str, other: Connection
) -> None:
    artifacts.publish(db, "v1", url, quiet)
    register(db, random_model(schema_of(db), seed=2), "v2")
    killed("artifacts.publish(connection, 'v2', url, die)", dsn, url, at)
    assert current(url) == "v1"
    assert artifacts.fetch(other, url, None, quiet) == {"version": "v1", "url": url, "registered": True}
    # The next attempt completes it.
    artifacts.publish(db, "v2", url, quiet)
    assert artifacts.fetch(other, url, None, quiet)["version"] == "v2"


def test_an_upload_interrupted_at_any_file_publishes_nothing(db: Connection, dsn: str, tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    artifacts.publish(db, "v1", url, quiet)
    register(db, random_model(schema_of(db), seed=2), "v2")
    for name in PUBLISHED:
        seen: list[str] = []

        def stop(what: str, share: float, name: str = name, seen: list[str] = seen) -> None:
            seen.append(what)
            if what == f"uploading {name}":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            artifacts.publish(db, "v2", url, stop)
        assert current(url) == "v1"
        with pytest.raises(UserError, match=r"there is no v2/manifest\.json"):
            artifacts.fetch(db, url, "v2", quiet)


@pytest.mark.sampled(1)
def test_a_fetch_that_is_killed_registers_nothing(db: Connection, dsn: str, url: str, other: Connection) -> None:
    artifacts.publish(db, "v1", url, quiet)
    target = other.info.dsn
    for at in ("downloading user_tower.onnx", "downloading weights.safetensors", "registering"):
        killed("artifacts.fetch(connection, url, None, die)", target, url, at)
        assert versions(other) == {}
    assert artifacts.fetch(other, url, None, quiet)["registered"]
