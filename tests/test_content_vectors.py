"""Vectors of images and texts: how they come in, that both engines read them, and that they place new videos."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl
import psycopg
import pytest
from psycopg import sql
from scipy import sparse

from conftest import Connection
from synthetic import make_data
from test_features import assert_one_encoder
from test_path import two_tower
from two_tower.data.imports.task import Import
from two_tower.data.imports.vectors import NUMBERS_THERE, Vectors
from two_tower.errors import UserError
from two_tower.features import LIKE, NOPE, VECTOR, VECTORS, FeatureSchema, TrainingData, user_counts
from two_tower.lifecycle import registry, towers
from two_tower.trainer import dataset, dataset_export, dataset_files
from two_tower.trainer.options import TrainOptions
from two_tower.trainer.train import fit
from world_fixtures import column, load, make_world, one, random_model, refresh, register, state

WORLD = make_world(120, 40)
NUMBERS = 12
PLACES = (
    "select video_id, embedding::text from two_tower.compute_videos(array(select id from public.videos), %s) order by 1"
)


@pytest.fixture
def clean_db(database: Any) -> Iterator[Connection]:
    """A migrated database without a world."""
    with psycopg.connect(database(), autocommit=True) as connection:
        yield connection


def made(videos: list[UUID], seed: int = 0) -> dict[UUID, list[float]]:
    rng = np.random.default_rng(seed)
    return {video: [float(x) for x in rng.normal(size=NUMBERS)] for video in videos}


def give(db: Connection, vectors: dict[UUID, list[float]], encoder: str = "clip") -> None:
    for video, vector in vectors.items():
        db.execute(
            "insert into two_tower.content_vectors values (%s, %s, %s)"
            " on conflict (video_id, encoder) do update set vector = excluded.vector",
            (video, encoder, vector),
        )


def world(db: Connection) -> FeatureSchema:
    """A version that reads the vectors of two encoders, of which most videos have one."""
    load(db, WORLD)
    give(db, made(WORLD.videos[:80]))
    give(db, made(WORLD.videos[40:], 1), "e5/small")
    schema = dataset.read(db).schema
    known = schema.vocabularies["video"]
    schema = replace(schema, vocabularies={**schema.vocabularies, "video": known[: len(known) // 2]})
    register(db, random_model(schema), "v1")
    registry.activate(db, "v1", lambda what, share: None)
    return schema


# ------------------------------------------------------------------------------------------------ what towers read


def test_i2_both_engines_and_the_trainer_read_the_same_vectors(clean_db: Connection) -> None:
    schema = world(clean_db)
    keys = schema.vocabularies[VECTOR]
    assert keys == tuple(f"{name}:{n + 1}" for name in ("clip", "e5/small") for n in range(NUMBERS))
    data = dataset.read(clean_db, schema=schema)
    assert_one_encoder(clean_db, data, "v1")
    assert data.item_counts[:, schema.segment("item", VECTORS).slice].nnz == NUMBERS * (80 + len(WORLD.videos) - 40)
    found = {
        engine: clean_db.execute(
            "select video_id, embedding::text from"
            " two_tower.compute_videos(array(select id from public.videos), 'v1', %s) order by 1",
            (engine,),
        ).fetchall()
        for engine in ("sql", "onnxruntime")
    }
    by_torch = towers.load(clean_db, "v1").item.embed(data.item_counts)
    for (video, by_sql), (_, by_onnx), vector in zip(*found.values(), by_torch, strict=True):
        np.testing.assert_allclose(json.loads(by_sql), json.loads(by_onnx), atol=2e-3, err_msg=str(video))
        np.testing.assert_allclose(json.loads(by_sql), vector, atol=2e-3, err_msg=str(video))


def test_a_payload_has_the_vectors_of_a_video(clean_db: Connection) -> None:
    world(clean_db)
    video = WORLD.videos[50]
    stored = dict(
        clean_db.execute(
            "select encoder, vector from two_tower.content_vectors where video_id = %s", (video,)
        ).fetchall()
    )
    found = one(clean_db, "select features -> 'content_vectors' from two_tower.video_payloads(array[%s::uuid])", video)
    assert {name: pytest.approx(vector) for name, vector in stored.items()} == found
    assert all(np.linalg.norm(vector) == pytest.approx(1) for vector in stored.values())


CHANGES: dict[str, str] = {
    "another": "update two_tower.content_vectors set vector = array_prepend(0.9::real, vector[2:]) where video_id = %s",
    "none": "delete from two_tower.content_vectors where video_id = %s",
    "a new one": "insert into two_tower.content_vectors values (%s, 'clip', array_fill(1::real, array[12]))",
    "another encoder": "update two_tower.content_vectors set encoder = 'unheard-of' where video_id = %s",
}


def test_i3_a_new_vector_moves_a_video_and_no_user(clean_db: Connection) -> None:
    schema = world(clean_db)
    video = next(v for v in WORLD.videos[:40] if str(v) not in schema.vocabularies["video"])
    other = next(v for v in WORLD.videos[20:40] if str(v) not in schema.vocabularies["video"] and v != video)
    refresh(clean_db)
    before = state(clean_db)
    for role in ("origin", "replica"):
        clean_db.execute(f"set session_replication_role = {role}".encode())
        for name, change in CHANGES.items():
            clean_db.execute(change.encode(), (video if role == "origin" else other,))
            assert column(clean_db, "select bool_or(reaches_users) from two_tower.video_changes") == [False], name
            refresh(clean_db)
            after = state(clean_db)
            changed = {key for key in after.keys() | before.keys() if after.get(key) != before.get(key)}
            assert changed == {f"video {video if role == 'origin' else other} v1"}, (role, name)
            clean_db.execute("call two_tower.rebuild()")
            assert state(clean_db) == after, (role, name)
            before = after
    clean_db.execute("set session_replication_role = origin")
    clean_db.execute("truncate two_tower.content_vectors")
    refresh(clean_db)
    found = state(clean_db)
    assert found != before
    clean_db.execute("call two_tower.rebuild()")
    assert state(clean_db) == found


def test_vectors_go_with_their_video_and_leave_nothing_to_refresh(clean_db: Connection) -> None:
    world(clean_db)
    video = WORLD.videos[50]
    clean_db.execute("delete from public.videos where id = %s", (video,))
    refresh(clean_db)
    assert one(clean_db, "select count(*) from two_tower.content_vectors where video_id = %s", video) == 0
    assert one(clean_db, "select count(*) from two_tower.video_changes") == 0


def test_what_is_no_vector_is_refused_wherever_it_comes_from(clean_db: Connection) -> None:
    load(clean_db, WORLD)
    video = WORLD.videos[0]
    bad = ("{}", "{0,0}", "{1,NaN}", "{1,Infinity}", "{1,null}", "{{1,2},{3,4}}", "{" + ",".join(["1"] * 2001) + "}")
    for vector in bad:
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            clean_db.execute("insert into two_tower.content_vectors values (%s, 'clip', %s::real[])", (video, vector))
    give(clean_db, {video: [3e30, 4e30]})
    assert one(clean_db, "select vector from two_tower.content_vectors") == pytest.approx([0.6, 0.8])
    clean_db.execute("update two_tower.content_vectors set vector = vector")
    moved = "select count(*) from two_tower.content_vectors where vector <> two_tower.unit_vector(vector)"
    assert one(clean_db, moved) == 0


def test_without_vectors_nothing_is_different(clean_db: Connection) -> None:
    """A version that reads none places every video as it did, vectors or not; and one from before there were any."""
    load(clean_db, WORLD)
    data = dataset.read(clean_db)
    assert data.schema.vocabularies[VECTOR] == ()
    model = random_model(data.schema)
    old = replace(model, feature_schema=model.schema.to_json(), vocabularies=dict(model.vocabularies))
    segments = old.feature_schema["item"]["segments"]
    old.feature_schema["item"]["segments"] = [s for s in segments if s["name"] != VECTORS]
    del old.vocabularies[VECTOR]
    register(clean_db, old, "old")
    register(clean_db, model, "same")
    before = clean_db.execute(PLACES, ("same",)).fetchall()
    assert clean_db.execute(PLACES, ("old",)).fetchall() == before
    give(clean_db, made(WORLD.videos))
    assert [clean_db.execute(PLACES, (version,)).fetchall() for version in ("old", "same")] == [before, before]


def test_files_of_a_dataset_have_the_vectors_that_the_database_trains_on(clean_db: Connection, tmp_path: Path) -> None:
    load(clean_db, WORLD)
    give(clean_db, made(WORLD.videos[:80]))
    give(clean_db, made(WORLD.videos[40:], 1), "e5/small")
    data = dataset.read(clean_db)
    dataset_export.export(clean_db, tmp_path, run="one")
    run = tmp_path / "runs" / "one"
    files = [run / f"{name}.parquet" for name in ("interactions_train", "interactions_val", "item_features")]
    loaded = dataset_files.load(files[0], files[1], files[2]).data
    assert loaded.schema == data.schema
    assert (loaded.item_counts != data.item_counts).nnz == 0


# ------------------------------------------------------------------------------------------------ training


def seen_by(data: TrainingData, *, said: bool, cone: float = 3.0) -> TrainingData:
    """The same data without tags, where a vector of each video shows its group amid noise, around one direction that
    all share; with ``said`` false, it shows nothing."""
    rng = np.random.default_rng(1)
    group = np.arange(data.n_items) % 6
    centres = rng.normal(size=(6, 24))
    vectors = rng.normal(size=(data.n_items, 24)) + cone * rng.normal(size=24)
    vectors += 1.5 * centres[group] if said else 0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    keys = dict(data.schema.vocabularies) | {VECTOR: tuple(f"clip:{n + 1}" for n in range(24))}
    at = data.schema.segment("item", VECTORS).offset
    parts = [data.item_counts[:, :at], sparse.csr_matrix(vectors.astype(np.float32)), data.item_counts[:, at:]]
    counts = sparse.hstack(parts, format="csr", dtype=np.float32)
    return replace(data, schema=FeatureSchema(keys), item_counts=counts)


def of_the_group(data: TrainingData, options: TrainOptions | None = None) -> tuple[float, Any]:
    """The share of the best four of the new videos that are of the user's group, and the model."""
    model = fit(data, options or TrainOptions())
    counts = user_counts(data.schema, data.item_counts, data.matrix(LIKE), data.matrix(NOPE))
    scores = model.user_tower.embed(counts) @ model.item_tower.embed(data.item_counts)[126:].T
    mine = (np.arange(126, 150)[None, :] % 6) == (np.arange(data.n_users)[:, None] % 6)
    best = np.argsort(-scores, axis=1)[:, :4]
    return float(np.take_along_axis(mine, best, axis=1).mean()), model


def test_vectors_place_new_videos_of_which_nothing_else_is_known() -> None:
    data = make_data(items=150, new_items=24, tags=False)
    without, _ = of_the_group(data)
    given, _ = of_the_group(seen_by(data, said=True))
    assert given > 2.5 * without


def test_vectors_that_say_nothing_do_no_harm() -> None:
    found, _ = of_the_group(seen_by(make_data(items=150, new_items=24), said=False))
    assert found > 0.9


# ------------------------------------------------------------------------------------------------ imports


def parquet(vectors: dict[UUID, list[float]], path: Path, kind: Any = None, name: str = "vector") -> Path:
    frame = pl.DataFrame({"video_id": [str(v) for v in vectors], name: list(vectors.values())})
    frame.with_columns(pl.col(name).cast(kind or pl.List(pl.Float32))).write_parquet(path)
    return path


def test_an_import_brings_vectors_in_whatever_holds_them(clean_db: Connection, tmp_path: Path) -> None:
    load(clean_db, WORLD)
    dsn, vectors = clean_db.info.dsn, made(WORLD.videos)
    urls = dict(clean_db.execute("select id, product_url from public.videos").fetchall())
    give(clean_db, {video: np.array(vector, np.float32).tolist() for video, vector in vectors.items()}, "direct")
    texts: dict[str, Callable[[list[float]], str]] = {
        "json": json.dumps,
        "postgres": lambda v: "{" + ",".join(map(str, v)) + "}",
        "numpy": lambda v: "[" + "  ".join(map(str, v)) + "]",
        "bars": lambda v: "|".join(map(str, v)),
        "semicolons": lambda v: ";".join(map(str, v)),
        "lines": lambda v: "[" + "\n ".join(map(str, v)) + "]",
    }
    files = {
        f"list of {kind}": parquet(vectors, tmp_path / f"{n}.parquet", kind)
        for n, kind in enumerate((pl.List(pl.Float32), pl.List(pl.Float64), pl.Array(pl.Float32, NUMBERS)))
    }
    files["embedding"] = parquet(vectors, tmp_path / "embedding.parquet", name="embedding")
    for name, text in texts.items():
        files[name] = tmp_path / f"{name}.csv"
        rows = {"Product_URL": [urls[video] for video in vectors], "Vector": [text(v) for v in vectors.values()]}
        pl.DataFrame(rows).write_csv(files[name])
    same = """select count(*) from two_tower.content_vectors c join two_tower.content_vectors d using (video_id)
        where c.encoder = %s and d.encoder = 'direct'
            and (c.vector::extensions.vector operator(extensions.<->) d.vector::extensions.vector) < 1e-6"""
    for n, (name, path) in enumerate(files.items()):
        run = (dsn, "import", "vectors", path, "--encoder", f"e{n}")
        assert f"{len(vectors)} were inserted" in two_tower(*run), name
        assert one(clean_db, same, f"e{n}") == len(vectors), name
        assert f"0 updated, {len(vectors)} unchanged" in two_tower(*run), name


def test_several_images_of_a_video_are_one_vector_between_them(clean_db: Connection, tmp_path: Path) -> None:
    load(clean_db, WORLD)
    video = WORLD.videos[0]
    path = tmp_path / "images.csv"
    rows = {video: [2, 0, 0], str(video).upper(): [0, 5, 0], WORLD.videos[1]: [0, 0, 1]}
    path.write_text("video_id,vector\n" + "".join(f'{video},"{vector}"\n' for video, vector in rows.items()))
    said = two_tower(clean_db.info.dsn, "import", "vectors", path, "--encoder", "clip")
    assert "2 were inserted, 0 updated, 0 unchanged" in said
    assert "1 more of a video that has one" in said
    found = one(clean_db, "select vector from two_tower.content_vectors where video_id = %s", video)
    assert found == pytest.approx([0.5**0.5, 0.5**0.5, 0])


def test_rows_that_are_no_vectors_are_reported_and_the_others_come_in(
    clean_db: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    load(clean_db, WORLD)
    ids = [str(video) for video in WORLD.videos]
    bad = {
        "[1, 2]": "vectors of clip have 3 numbers",
        "[1, 2, 3": "not a list of finite numbers",
        "1, 2, 3]": "not a list of finite numbers",
        "[1, 2, x]": "not a list of finite numbers",
        "[0.1 0.2 ... 0.9]": "not a list of finite numbers",
        "[1, nan, 2]": "not a list of finite numbers",
        "[0, 0, 0]": "without a direction",
        "": "empty",
        "[" + ",".join(["1"] * 2001) + "]": "not from 1 to 2,000",
    }
    good = [f'{video},"[1, {n}, 2]"' for n, video in enumerate(ids[20:40])]
    rows = [*good, *(f'{video},"{vector}"' for video, vector in zip(ids, bad, strict=False)), 'nobody,"[1, 2, 3]"']
    Path("v.csv").write_text("video_id,vector\n" + "\n".join(rows) + "\n")
    said = two_tower(clean_db.info.dsn, "import", "vectors", "v.csv", "--encoder", "clip")
    assert f"{len(good)} were inserted" in said
    report = pl.read_csv("v.rejects.csv", infer_schema=False)
    for line, reason in enumerate([*bad.values(), "not a UUID"], start=2 + len(good)):
        (row,) = report.filter(pl.col("line") == str(line)).to_dicts()
        assert reason in row["reason"], row


def test_whether_an_encoder_has_vectors_is_not_asked_of_those_of_others(clean_db: Connection) -> None:
    clean_db.execute(
        "insert into two_tower.content_vectors select gen_random_uuid(), 'clip', array[0.6, 0.8]"
        " from generate_series(1, 5000)"
    )
    for analyzed in (False, True):
        if analyzed:
            clean_db.execute("analyze two_tower.content_vectors")
        for encoder in ("another", "another/one"):
            query = sql.SQL("explain (costs off) ") + NUMBERS_THERE.format(sql.Literal(encoder))
            plan = "\n".join(line for (line,) in clean_db.execute(query))
            assert "content_vectors_encoder_idx" in plan, plan


def test_imports_of_one_encoder_at_once_agree_on_how_many_numbers_a_vector_has(
    clean_db: Connection, tmp_path: Path
) -> None:
    load(clean_db, WORLD)
    first, second = made(WORLD.videos[:3]), {video: [1.0, 2.0] for video in WORLD.videos[3:6]}
    file = parquet(second, tmp_path / "second.parquet")
    with psycopg.connect(clean_db.info.dsn) as other:

        class Late(Vectors):
            def merge(self) -> None:
                give(clean_db, first)
                super().merge()

        with pytest.raises(UserError, match="have 12 numbers, and those of the file 2"):
            Import(other, file, None, None).run(Late, encoder="clip")
    assert one(clean_db, "select count(*) from two_tower.content_vectors") == 3


def test_a_vector_of_another_length_is_read_by_no_version_that_knows_the_first(clean_db: Connection) -> None:
    """Neither half of it by SQL, nor of a trainer that reads the rows by the schema of a version."""
    schema = world(clean_db)
    video, other = WORLD.videos[5], WORLD.videos[6]
    for numbers in (NUMBERS - 1, NUMBERS + 1, 2):
        clean_db.execute("delete from two_tower.content_vectors where video_id = any (%s)", ([video, other],))
        without = clean_db.execute(PLACES, ("v1",)).fetchall()
        give(clean_db, {video: [1.0] * numbers, other: [2.0] * numbers})
        assert clean_db.execute(PLACES, ("v1",)).fetchall() == without, numbers
        data = dataset.read(clean_db, schema=schema)
        assert_one_encoder(clean_db, data, "v1")
        # What is trained next reads what most have.
        assert dataset.read(clean_db).schema.vocabularies[VECTOR] == schema.vocabularies[VECTOR]
    clean_db.execute("delete from two_tower.content_vectors where encoder = 'clip'")
    without = clean_db.execute(PLACES, ("v1",)).fetchall()
    give(clean_db, {each: vector[:7] for each, vector in made(WORLD.videos).items()})
    assert clean_db.execute(PLACES, ("v1",)).fetchall() == without
    assert_one_encoder(clean_db, dataset.read(clean_db, schema=schema), "v1")
    keys = dataset.read(clean_db).schema.vocabularies[VECTOR]
    assert [key for key in keys if key.startswith("clip:")] == [f"clip:{n + 1}" for n in range(7)]
