"""Training from files: the same training set as from the database that was exported, and files of every form."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conftest import Connection
from test_path import two_tower
from two_tower.data.csv_file import NOTHING
from two_tower.errors import UserError
from two_tower.features import LIKE, NOPE, SKIP
from two_tower.trainer.dataset import FEWEST_VIDEOS, DatasetOptions, read
from two_tower.trainer.dataset_export import export
from two_tower.trainer.dataset_files import Loaded, load
from two_tower.trainer.options import TrainOptions
from two_tower.trainer.splits import split
from two_tower.trainer.train import fit


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports of rows that cannot be used go to the working directory."""
    monkeypatch.chdir(tmp_path)


NAMES = ("interactions_train", "interactions_val", "item_features")


@pytest.fixture
def exported(db: Connection, tmp_path: Path) -> Path:
    export(db, tmp_path / "data")
    return tmp_path / "data" / "latest"


def from_files(directory: Path, suffix: str = "parquet", options: DatasetOptions | None = None) -> Loaded:
    train, val, items = (directory / f"{name}.{suffix}" for name in NAMES)
    return load(train, val, items, options)


def flat(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame as it can be written to CSV."""
    lists = [name for name, kind in frame.schema.items() if kind == pl.List]
    return frame.with_columns(pl.col(lists).list.join("|"))


@pytest.mark.world
def test_files_hold_the_training_set_of_the_database(db: Connection, tmp_path: Path) -> None:
    db.execute("update public.user_video_decisions set weight = 0.25 where hashtext(video_id::text) % 3 = 0")
    export(db, tmp_path / "data")
    exported = tmp_path / "data" / "latest"
    expected = read(db)
    held = split(expected, ratio=0.2, min_likes=5, seed=0)
    for name in NAMES:
        flat(pl.read_parquet(exported / f"{name}.parquet")).write_csv(tmp_path / f"{name}.csv")
    for found in (from_files(exported), from_files(tmp_path, "csv")):
        data = found.data
        for name in ("user_ids", "item_ids", "user", "item", "label"):
            assert np.array_equal(getattr(data, name), getattr(expected, name)), name
        assert np.allclose(data.time, expected.time, rtol=0, atol=1e-5)
        assert data.weight is not None
        assert expected.weight is not None
        assert np.array_equal(data.weight, expected.weight)
        assert data.schema == expected.schema
        assert (data.item_counts != expected.item_counts).nnz == 0
        assert found.held is not None
        assert np.array_equal(found.held, held)
        assert found.joined == found.interactions == len(expected.user)
        assert len(found.addresses) == expected.n_items


ITEMS = pl.DataFrame({"video_id": ["a", "b", "c"], "tags": ["x|y", "x", None], "price": ["980円", "", "1,980"]})


@pytest.mark.parametrize(
    ("columns", "labels"),
    [
        ({"user_id": ["u"] * 3, "video_id": ["a", "b", "c"], "label": [1, 0, -1]}, [LIKE, NOPE]),
        (
            {"user_id": ["u"] * 3, "video_id": ["a", "b", "c"], "label": [1, 0, -1], "decision": ["1", "f", "skip"]},
            [LIKE, NOPE, SKIP],
        ),
        ({"reviewer_id": [7] * 3, "item_id": ["a", "b", "c"], "label": [1.0, 0.0, 1.0]}, [LIKE, NOPE, LIKE]),
        (
            {"user_id": ["u"] * 3, "video_id": ["a", "b", "c"], "decision": ["LIKE", "DISLIKE", "skip"]},
            [LIKE, NOPE, SKIP],
        ),
        ({"user_id": ["u"] * 3, "video_id": ["a", "b", "c"], "stars": [4, 2, 3]}, [LIKE, NOPE, SKIP]),
        (
            {"user_id": ["u"] * 4, "video_id": ["a", "b", "gone", "c"], "decision": ["like", "what?", "like", "nope"]},
            [LIKE, NOPE],
        ),
    ],
)
def test_interactions_are_read_in_every_documented_form(
    columns: dict[str, list[object]], labels: list[int], tmp_path: Path
) -> None:
    ITEMS.write_csv(tmp_path / "items.csv")
    pl.DataFrame(columns).write_parquet(tmp_path / "train")
    pl.DataFrame(columns).write_csv(tmp_path / "train.csv")
    for name in ("train", "train.csv"):
        found = load(tmp_path / name, None, tmp_path / "items.csv").data
        assert found.label.tolist() == labels
        assert found.schema.vocabularies["tag"] == ("x", "y")
        assert found.item_counts[0, 0] == 980
        assert found.time.tolist() == [0] * len(labels)


@pytest.mark.parametrize(
    "times",
    [
        ["2026-01-01T00:00:00Z", "2026-01-02 00:00:00"],
        ["2026-01-01", "2026-01-02T09:00:00.000+09:00"],
        ["1767225600", "1767312000.0"],
        [1767225600, 1767312000],
        [datetime(2026, 1, 1), datetime(2026, 1, 2)],
        [date(2026, 1, 1), date(2026, 1, 2)],
    ],
)
def test_times_are_read_in_every_documented_form(times: list[object], tmp_path: Path) -> None:
    ITEMS.write_parquet(tmp_path / "items")
    frame = pl.DataFrame({"user_id": "u", "video_id": ["a", "b"], "label": 1, "created_at": times})
    frame.write_parquet(tmp_path / "train")
    assert load(tmp_path / "train", None, tmp_path / "items").data.time.tolist() == [1767225600, 1767312000]


def test_tags_are_read_in_every_documented_form(tmp_path: Path) -> None:
    """As programs write lists into CSV; the error for a truncated list shows its text."""

    def tags(cell: str) -> tuple[str, ...]:
        pl.DataFrame({"user_id": ["u"], "video_id": ["a"], "label": [1]}).write_csv(tmp_path / "train.csv")
        pl.DataFrame({"video_id": ["a"], "tags": [cell], "maker": ["[m, n]"]}).write_csv(tmp_path / "items.csv")
        vocabularies = load(tmp_path / "train.csv", None, tmp_path / "items.csv").data.schema.vocabularies
        assert vocabularies["maker"] == ("[m, n]",)
        return vocabularies["tag"]

    assert tags("x|y z") == ("x", "y z")
    for cell in ('{x,"y z"}', '["x", "y z"]', "['x', 'y z']", "[x, y z]", " x | y z "):
        assert tags(cell) == ("x", "y z"), cell
    with pytest.raises(UserError, match="1 of them in the column tags: begins as a list"):
        tags('["x')


def test_files_are_read_as_imports_read_them(tmp_path: Path) -> None:
    """Encodings, delimiters, numbers, times and scales; what can be nothing is reported by line, and not guessed."""
    said: list[str] = []
    items = 'video_id;tags;maker;price;released_at\n1.0;["恋愛", "学園"];ﾃｽﾄ;"1.980,50";31.01.2025\n'
    items += "2;恋愛;テスト;980円;2025年1月31日\n3;;;free;\n"
    (tmp_path / "items.csv").write_bytes(items.encode("cp932"))
    train = '"reviewer_id" "video_id" "stars" "created_at"\n'
    lines = [
        ("7.0", "1", "9"),
        ("7", "2", "10"),
        ("8", "1", "6"),
        ("8", "2", "2"),
        ("9", "2", "good"),
        ("9", "1", NOTHING[0]),
    ]
    for n, (user, item, stars) in enumerate(lines):
        train += f'"{n + 1}" "{user}" "{item}" {stars} "2025-01-31 12:00:0{n} JST"\n'
    (tmp_path / "train.csv").write_text(train)
    found = load(tmp_path / "train.csv", None, tmp_path / "items.csv", say=said.append).data
    assert (found.user_ids.tolist(), found.item_ids.tolist()) == (["7", "8"], ["1", "2"])
    assert found.label.tolist() == [LIKE, LIKE, SKIP, NOPE]
    assert found.time.tolist() == [datetime(2025, 1, 31, 3, 0, n, tzinfo=UTC).timestamp() for n in range(4)]
    assert found.item_counts[:, 0].toarray().ravel().tolist() == [1980.5, 980]
    assert found.schema.vocabularies["tag"] == ("恋愛", "学園")
    assert [line for line in said if "left out" in line] == [
        f"{tmp_path}/items.csv: 1 of 3 rows are left out: see items.rejects.csv",
        f"{tmp_path}/train.csv: 2 of 6 rows are left out: see train.rejects.csv",
    ]
    assert any("stars go to 10" in line for line in said)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "train.csv").write_text("user_id,video_id,label\n7,1,1\n7,2,maybe\n")
    load(tmp_path / "train.csv", tmp_path / "other" / "train.csv", tmp_path / "items.csv")
    assert pl.read_csv(tmp_path / "val.rejects.csv")["value"].to_list() == ["maybe"]
    reported = pl.read_csv(tmp_path / "train.rejects.csv")
    assert reported.select("line", "column", "value").rows() == [(6, "stars", "good"), (7, "stars", "")]
    assert pl.read_csv(tmp_path / "items.rejects.csv")["line"].to_list() == [4]


@pytest.mark.parametrize("fault", [
    {"label": ["like", "love", "hate"]}, {"weight": [1, 99, -1]}, {"created_at": ["", "01/02/2025", "soon"]},
    {"created_at": ["2025-01-01", "1969-12-31", "2999-01-01"]},
    {"user_id": ["a", "1.5E+11", "1.5E+12"]}, {"video_id": ["a", "1E+12", ""]},
], ids=str)  # fmt: skip
def test_a_file_with_more_bad_rows_than_good_is_not_trained_on(fault: dict[str, list[object]], tmp_path: Path) -> None:
    ITEMS.write_csv(tmp_path / "items.csv")
    columns = {"user_id": ["u"] * 3, "video_id": ["a", "b", "c"], "label": [1] * 3} | fault
    pl.DataFrame(columns, strict=False).write_csv(tmp_path / "train.csv")
    with pytest.raises(UserError, match=f"2 of 3 rows are rejected, . of them in the column {next(iter(fault))}"):
        load(tmp_path / "train.csv", None, tmp_path / "items.csv")


def test_items_have_the_limits_of_imports(tmp_path: Path) -> None:
    """Lengths, and what a price, a duration and a release may be."""
    good: dict[str, object] = {
        "maker": "m",
        "tags": "t",
        "price": 1,
        "duration_seconds": 1,
        "released_at": "2020-01-01",
    }
    faults: list[tuple[str, object]] = [
        ("maker", "x" * 1_025), ("tags", "t|" + "x" * 1_025), ("tags", '["a"'),
        ("price", -1), ("price", "1e400"), ("price", "NaN"),
        ("duration_seconds", 1.5), ("duration_seconds", -1), ("released_at", "0001-01-01"), ("released_at", 3),
        ("video_id", "x" * 2_001),
    ]  # fmt: skip
    rows = [{"video_id": f"v{n}", **good} for n in range(len(faults) + 1)]
    for row, (name, value) in zip(rows, faults, strict=False):
        row[name] = value
    pl.DataFrame([{name: str(value) for name, value in row.items()} for row in rows]).write_csv(tmp_path / "items.csv")
    pl.DataFrame({"user_id": "u", "video_id": [row["video_id"] for row in rows], "label": 1}).write_csv(
        tmp_path / "train.csv"
    )
    with pytest.raises(UserError, match="11 of 12 rows are rejected"):
        load(tmp_path / "train.csv", None, tmp_path / "items.csv")
    reported = pl.read_csv(tmp_path / "items.rejects.csv").sort("line")
    assert reported["column"].to_list() == [name for name, _ in faults]


def test_vectors_keep_the_name_of_their_encoder(tmp_path: Path) -> None:
    liked = {"video_id": [f"v{n}" for n in range(FEWEST_VIDEOS)]}
    pl.DataFrame(liked | {"user_id": "u", "label": 1}).write_parquet(tmp_path / "train")
    vectors = [[1.0, 2.0]] * FEWEST_VIDEOS
    pl.DataFrame(liked | {"vector_CLIP-ViT": vectors}).write_parquet(tmp_path / "items")
    schema = load(tmp_path / "train", None, tmp_path / "items").data.schema
    assert schema.vocabularies["content_vector"] == ("CLIP-ViT:1", "CLIP-ViT:2")


def test_vectors_of_several_lengths_are_refused(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": "u", "video_id": ["a", "b"], "label": 1}).write_parquet(tmp_path / "train")
    for vectors in ([[1.0], [1.0, 2.0]], [[1.0] * 2_001] * 2, [[1.0], []]):
        items = pl.DataFrame(
            {"video_id": ["a", "b"], "vector_clip": vectors}, schema_overrides={"vector_clip": pl.List(pl.Float32)}
        )
        items.write_parquet(tmp_path / "items")
        with pytest.raises(UserError, match="the vectors of vector_clip have from"):
            load(tmp_path / "train", None, tmp_path / "items")


def test_the_key_of_items_is_found_in_other_letters_of_case(tmp_path: Path) -> None:
    (tmp_path / "train").write_text("user_id,CID,label\nu,a,1\n")
    (tmp_path / "items").write_text("Cid,tags\na,x\n")
    for key in ("CID", "cid"):
        assert load(tmp_path / "train", None, tmp_path / "items", item_key=key).data.item_ids.tolist() == ["a"]


@pytest.mark.parametrize("limit", [0, -1, -100])
def test_a_limit_of_0_or_less_keeps_the_whole_vocabulary(limit: int, tmp_path: Path) -> None:
    videos = ["a", "b", "c"]
    many = pl.DataFrame({"video_id": videos, "tags": [[f"{video}{n}" for n in range(1000)] for video in videos]})
    many.write_parquet(tmp_path / "items")
    pl.DataFrame({"video_id": videos}).with_columns(user_id=pl.lit("u"), label=1).write_parquet(tmp_path / "train")
    whole = DatasetOptions(max_tag_features=limit)
    assert len(load(tmp_path / "train", None, tmp_path / "items", whole).data.schema.vocabularies["tag"]) == 3000
    assert len(load(tmp_path / "train", None, tmp_path / "items").data.schema.vocabularies["tag"]) == 2000


@pytest.mark.parametrize(
    ("train", "items", "said"),
    [
        (b"", b"video_id\na\n", "train.csv is empty"),
        (b"PAR1nothing", b"video_id\na\n", "is not a readable Parquet file"),
        (b"user_id,label\nu,1\n", b"video_id\na\n", "no column video_id or item_id"),
        (b"video_id,label\na,1\n", b"video_id\na\n", "no column user_id or reviewer_id"),
        (b"user_id,video_id\nu,a\n", b"video_id\na\n", "no column decision or label or stars"),
        (b"user_id,video_id,label\nu,a,1\n", b"id\na\n", "no column video_id"),
        (b"user_id,video_id,label\nu,b,1\n", b"video_id\na\n", "of 1 interactions, 0 name an item"),
        (b"user_id,video_id,label\nu,a,0\n", b"video_id\na\n", "there are no likes"),
        (b"user_id,video_id,label,timestamp\nu,a,1,soon\n", b"video_id\na\n", "in the column timestamp: not a time"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(train: bytes, items: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(train)
    (tmp_path / "items.csv").write_bytes(items)
    with pytest.raises(UserError, match=said):
        load(tmp_path / "train.csv", None, tmp_path / "items.csv")


@pytest.mark.parametrize("val", [
    "", "v,a,0\n", "somebody,a,1\n", "v,gone,1\n", "u,a,1\nu,b,1\nv,a,1\n",
], ids=["no rows", "no likes", "strangers", "unknown items", "all of the training"])  # fmt: skip
def test_a_val_file_on_which_nothing_can_be_measured_is_refused(val: str, tmp_path: Path) -> None:
    ITEMS.write_csv(tmp_path / "items.csv")
    head = "user_id,video_id,label\n"
    (tmp_path / "train.csv").write_text(f"{head}u,a,1\nu,b,1\nv,a,1\n")
    (tmp_path / "val.csv").write_text(head + val)
    loaded = load(tmp_path / "train.csv", tmp_path / "val.csv", tmp_path / "items.csv")
    with pytest.raises(UserError, match="nothing can be measured on what is held out"):
        fit(loaded.data, TrainOptions(), held=loaded.held)


@pytest.mark.world
def test_a_model_trained_from_files_registers_in_the_database(
    dsn: str, db: Connection, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One training with epochs, with every option of gradients."""
    monkeypatch.chdir(tmp_path)  # no embedded server here, and DATABASE_URL names no real one
    files = [word for name, file in zip(("--train", "--val", "--items"), NAMES, strict=True)
             for word in (name, exported / f"{file}.parquet")]  # fmt: skip
    options = ("--epochs", "2", "--lr", "0.05", "--lr-decay", "cosine", "--batch-size", "16", "--hidden-dim", "32")
    printed = two_tower(
        "postgresql://nobody@127.0.0.1:1/nothing", "train", *files, *options, "--disable-user-features", "--k", "5",
        "--k", "10", "--out-dir", tmp_path / "artifacts", "--run-id", "filed",
    )  # fmt: skip
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert [line["epoch"] for line in lines] == list(range(len(lines)))
    assert len(lines) >= 2
    assert all(np.isfinite(line["val_loss"]) for line in lines)
    run = tmp_path / "artifacts" / "runs" / "filed"
    assert (tmp_path / "artifacts" / "latest").resolve() == run.resolve()
    meta = json.loads((run / "model_meta.json").read_text())
    assert meta["loss"]["epochs"] == lines
    assert meta["hyperparameters"]["user_attributes"] is False
    metrics = json.loads((run / "metrics.json").read_text())["two-tower"]
    for name in ("recall", "precision", "map", "ndcg"):
        assert metrics[f"{name}@5"] <= 1
        assert {f"{name}@{k}" for k in (5, 10, 20)} <= metrics.keys()
    assert metrics["recall@5"] <= metrics["recall@10"] <= metrics["recall@20"]
    two_tower(dsn, "model", "register", run)
    segments = db.execute(
        """select distinct i.segment from two_tower.model_inputs i join two_tower.model_weights w
        on w.model_version = i.model_version and w.tower = 'user' and w.part = 'row' and w.position = i.position
        where i.model_version = 'filed' and i.tower = 'user'"""
    ).fetchall()
    assert {name for (name,) in segments} <= {"liked_video_ids", "noped_video_ids"}
    two_tower(dsn, "model", "activate", "filed", "--force")
    vectors = pl.read_parquet(run / "video_embeddings.parquet")
    stored = db.execute("select video_id::text, embedding::text from public.video_embeddings order by 1").fetchall()
    assert vectors["video_id"].to_list() == [video for video, _ in stored]
    expected = np.array([json.loads(text) for _, text in stored])
    assert np.allclose(vectors["embedding"].to_numpy(), expected, atol=2e-3)
