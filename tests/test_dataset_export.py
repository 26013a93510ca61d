"""Datasets for other trainers: the trainer's own rows and split, and features without held-out rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psycopg
import pytest
from typer.testing import CliRunner

from two_tower.errors import UserError
from two_tower.trainer import dataset_export
from two_tower.trainer.dataset import DatasetOptions, read
from two_tower.trainer.dataset_export import export
from two_tower.trainer.splits import split
from world_fixtures import column, load, make_world, one

Connection = psycopg.Connection[Any]

WORLD = make_world()
FILES = ["interactions_train.parquet", "interactions_val.parquet", "item_features.parquet", "user_features.parquet"]


@pytest.fixture
def world(db: Connection) -> Connection:
    load(db, WORLD)
    db.execute(
        "insert into two_tower.reviews select gen_random_uuid(), id, stars, '2024-05-01' from public.videos,"
        " (values (5), (4.5), (1), (3)) s (stars) where product_url like '%/1_'"
    )
    return db


def frames(directory: Path) -> dict[str, pl.DataFrame]:
    return {name.removesuffix(".parquet"): pl.read_parquet(directory / "latest" / name) for name in FILES}


def test_interactions_are_those_of_the_trainer(world: Connection, tmp_path: Path) -> None:
    summary = export(world, tmp_path, val_ratio=0.25, seed=3)
    got = frames(tmp_path)
    data = read(world)
    held = split(data, ratio=0.25, min_likes=5, seed=3)
    for name, rows in (("train", ~held), ("val", held)):
        frame = got[f"interactions_{name}"]
        assert frame["user_id"].to_list() == data.user_ids[data.user[rows]].tolist()
        assert frame["video_id"].to_list() == data.item_ids[data.item[rows]].tolist()
        assert frame["label"].to_list() == data.label[rows].tolist()
        assert frame["created_at"].dt.epoch("us").to_list() == np.round(data.time[rows] * 1e6).astype(int).tolist()
        counts = {name: (frame["decision"] == name).sum() for name in ("like", "nope", "skip")}
        assert summary["interactions"][name] == counts
        assert summary["files"][f"interactions_{name}.parquet"]["rows"] == len(frame)
    assert len(got["interactions_val"]) > 100
    addresses = dict(world.execute("select id::text, product_url from public.videos").fetchall())
    assert all(
        addresses[video] == address
        for video, address in got["interactions_train"].select("video_id", "product_url").iter_rows()
    )
    stars = one(world, "select count(*) from two_tower.reviews where stars = 4.5")
    assert summary["stars"]["4.5"] == stars
    assert summary["users"] == len(data.user_ids)


def test_items_have_all_inputs_of_the_item_tower(world: Connection, tmp_path: Path) -> None:
    images = ["https://i/1?a,b", 'https://i/"2"']
    (pictured,) = world.execute(
        "update public.videos set image_urls = %s where id = (select min(id::text)::uuid from public.videos)"
        " returning id::text",
        (images,),
    ).fetchone() or ("",)
    export(world, tmp_path)
    items = {row["video_id"]: row for row in frames(tmp_path)["item_features"].iter_rows(named=True)}
    assert len(items) == len(WORLD.videos)
    assert {video: row["image_urls"] for video, row in items.items() if row["image_urls"]} == {pictured: images}
    payloads = world.execute("select video_id::text, features from public.get_item_embedding_feature_batch(1000)")
    names = dict(
        world.execute("select id::text, name from public.tags union all select id::text, name from performers")
    )
    for video, payload in payloads:
        row = items[video]
        assert sorted(row["tags"]) == sorted(payload["tags"])
        assert sorted(row["performers"]) == sorted(payload["performers"])
        assert [names[tag] for tag in row["tags"]] == row["tag_names"]
        assert [names[performer] for performer in row["performers"]] == row["performer_names"]
        for name in ("maker", "label", "series", "source", "duration_seconds"):
            assert row[name] == payload[name], name
        assert row["price"] == (None if payload["price"] is None else pytest.approx(payload["price"], rel=1e-6))


def test_users_are_counted_as_the_database_counts_them(world: Connection, tmp_path: Path) -> None:
    """With nothing held out, features equal the payload that serves."""
    export(world, tmp_path, min_likes=10**6)
    got = frames(tmp_path)
    assert len(got["interactions_val"]) == 0
    users = {row["user_id"]: row for row in got["user_features"].iter_rows(named=True)}
    decided = column(world, "select distinct user_id::text from public.user_video_decisions")
    payloads = dict(world.execute("select user_id::text, features from two_tower.user_payloads(%s::uuid[])", [decided]))
    for user in decided:
        row, payload = users[user], payloads[user]
        for name in ("like_count", "nope_count", "like_count_30d"):
            assert row[name] == payload[name], name
        for name in ("like_ratio", "positive_ratio_30d", "price_mean"):
            assert row[name] == (None if payload[name] is None else pytest.approx(payload[name], rel=1e-6)), name
        for name in ("liked_tags", "liked_performers", "liked_makers", "liked_labels", "liked_series", "liked_sources"):
            assert {entry["key"]: entry["count"] for entry in row[name]} == payload[name], name
        for name in ("liked_video_ids", "noped_video_ids"):
            assert sorted(row[name]) == sorted(payload[name]), name


def test_held_out_rows_are_not_in_the_features(world: Connection, tmp_path: Path) -> None:
    export(world, tmp_path, val_ratio=0.5)
    got = frames(tmp_path)
    held = set(got["interactions_val"].select("user_id", "video_id").iter_rows())
    for row in got["user_features"].iter_rows(named=True):
        known = set(row["liked_video_ids"]) | set(row["noped_video_ids"])
        assert not any((row["user_id"], video) in held for video in known)
        assert row["like_count"] == len(row["liked_video_ids"])
    train = got["interactions_train"]
    assert got["user_features"]["like_count"].sum() == (train["label"] == 1).sum()


def test_all_files_of_a_run_show_one_moment(
    world: Connection, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although a video and a user go, and a review comes, when the interactions are read."""

    def read_and_change(*arguments: Any) -> Any:
        data = read(*arguments)
        with psycopg.connect(dsn) as other:
            other.execute("delete from public.videos where id = %s", (data.item_ids[data.item[0]],))
            other.execute("delete from auth.users where id = %s", (data.user_ids[-1],))
            other.execute(
                "insert into two_tower.reviews select gen_random_uuid(), min(id::text)::uuid, 2 from public.videos"
            )
        return data

    before = export(world, tmp_path / "before", snapshot_inputs=True)
    monkeypatch.setattr(dataset_export, "read", read_and_change)
    during = export(world, tmp_path / "during", snapshot_inputs=True)
    assert len(before["files"]) == 6
    for name in ("files", "stars", "joined"):
        assert during[name] == before[name], name


def test_users_excluded_from_training_are_in_no_file(world: Connection, tmp_path: Path) -> None:
    """Nor in the snapshots. Users who opted out only of personal lists are in the files."""
    untrained, impersonal = make_world().usual, make_world().many
    world.execute(
        "insert into two_tower.reviews select u, v.id, 5 from unnest(%s::uuid[]) u, (select id from videos limit 3) v",
        ([untrained, impersonal],),
    )
    world.execute(
        """insert into two_tower.user_choices (user_id, personalised, trained_on)
        values (%s, true, false), (%s, false, true)""",
        (untrained, impersonal),
    )
    export(world, tmp_path, snapshot_inputs=True)
    inputs = {
        name: pl.read_parquet(tmp_path / "latest" / "inputs" / f"{name}.parquet") for name in ("decisions", "reviews")
    }
    for name, frame in (frames(tmp_path) | inputs).items():
        if name != "item_features":
            users = set(frame["user_id"])
            assert str(untrained) not in users, name
            assert str(impersonal) in users, name
    for name, table, who in (
        ("decisions", "public.user_video_decisions", "user_id"),
        ("reviews", "two_tower.reviews", "reviewer_id"),
    ):
        assert len(inputs[name]) == one(world, f"select count(*) from {table} where {who} <> %s", untrained)


def test_runs_are_kept_and_latest_is_the_newest(world: Connection, tmp_path: Path) -> None:
    first = export(world, tmp_path)
    world.execute("delete from two_tower.reviews")
    second = export(world, tmp_path, DatasetOptions(min_stars=3))
    assert (tmp_path / "latest").resolve() == Path(second["directory"]).resolve()
    runs = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert sorted([Path(first["directory"]).name, Path(second["directory"]).name]) == runs
    for run in (first, second):
        assert sorted(path.name for path in Path(run["directory"]).iterdir()) == sorted([*FILES, "summary.json"])
    written = json.loads((tmp_path / "latest" / "summary.json").read_text())
    assert written == {name: value for name, value in second.items() if name != "directory"}
    assert written["options"]["min_stars"] == 3
    assert written["files"]["item_features.parquet"]["rows"] == len(WORLD.videos)


def test_a_failed_export_leaves_latest_as_it_was(world: Connection, tmp_path: Path) -> None:
    first = export(world, tmp_path)
    world.execute("delete from public.user_video_decisions")
    world.execute("delete from two_tower.reviews")
    with pytest.raises(UserError, match="no likes to learn from"):
        export(world, tmp_path)
    assert (tmp_path / "latest").resolve() == Path(first["directory"]).resolve()
    assert len(list((tmp_path / "runs").iterdir())) == 1
    (tmp_path / "file").write_text("")
    world.execute("insert into two_tower.reviews select gen_random_uuid(), id, 5 from public.videos")
    with pytest.raises(UserError, match="cannot write to"):
        export(world, tmp_path / "file" / "below")


def test_dataset_export_writes_files_and_prints_json(dsn: str, world: Connection, tmp_path: Path) -> None:
    from two_tower.cli.main import app

    result = CliRunner().invoke(app, ["dataset", "export", str(tmp_path / "data"), "--dsn", dsn, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["users"] > 40
    assert (tmp_path / "data" / "latest" / "interactions_train.parquet").exists()


def test_a_run_has_the_requested_name_and_inputs(world: Connection, tmp_path: Path) -> None:
    orphaned = one(world, "select count(*) from public.user_video_decisions")
    world.execute(
        "update public.videos set product_url = 'https://www.dmm.co.jp/-/detail/=/cid=abc00001/' where id ="
        " (select id from public.videos order by id limit 1)"
    )
    done = export(world, tmp_path, run="friday", snapshot_inputs=True)
    run = tmp_path / "runs" / "friday"
    assert (tmp_path / "latest").resolve() == run.resolve()
    assert done["joined"]["decisions"] == {"rows": orphaned, "with_video": orphaned, "rate": 1.0}
    assert done["cids"] == {"with_cid": 1, "without_cid": len(WORLD.videos) - 1}
    kept = pl.read_parquet(run / "inputs" / "decisions.parquet")
    assert len(kept) == orphaned
    reviews = pl.read_parquet(run / "inputs" / "reviews.parquet")
    assert sorted(set(reviews["stars"])) == ["1", "3", "4.5", "5"]
    for name in ("friday", "", "..", "a/b", "ü", "x" * 64):
        with pytest.raises(UserError, match=r"there is a run|cannot be called"):
            export(world, tmp_path, run=name)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["friday"]


@pytest.mark.parametrize("each", [1, 3])
def test_negatives_exclude_what_is_known_in_the_training_part(world: Connection, tmp_path: Path, each: int) -> None:
    export(world, tmp_path, neg_per_pos=each)
    drawn = pl.read_parquet(tmp_path / "latest" / "negatives_train.parquet")
    train = frames(tmp_path)["interactions_train"]
    likes = int((train["label"] == 1).sum())
    assert likes * each / 2 < len(drawn) <= likes * each
    assert set(drawn["label"]) == {0}
    pairs = set(drawn.select("user_id", "video_id").iter_rows())
    assert len(pairs) == len(drawn)
    assert not pairs & set(train.select("user_id", "video_id").iter_rows())
    # Held-out likes may be drawn like any other video: their absence would reveal them.
    held = frames(tmp_path)["interactions_val"]
    assert pairs & set(held.select("user_id", "video_id").iter_rows())
    assert set(drawn["user_id"]) <= set(train.filter(pl.col("label") == 1)["user_id"])


def test_a_mode_selects_only_decisions_or_only_reviews(world: Connection, tmp_path: Path) -> None:
    # If a user has both for a video, only the decision counts.
    world.execute(
        "insert into two_tower.reviews select user_id, video_id, 5 from public.user_video_decisions"
        " where decision_type = 'nope' limit 3"
    )
    decisions = one(world, "select count(*) from public.user_video_decisions")
    reviews = one(world, "select count(*) from two_tower.reviews") - 3
    for mode, rows in (("all", decisions + reviews), ("explicit", decisions), ("reviews", reviews)):
        assert len(read(world, DatasetOptions(mode=mode)).user) == rows, mode
    world.execute("delete from two_tower.reviews")
    with pytest.raises(UserError, match="no likes among reviews"):
        read(world, DatasetOptions(mode="reviews"))
