"""Versions of vectors that were computed elsewhere: they serve unchanged, and only deletions affect them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psycopg
import pytest
from typer.testing import CliRunner

from conftest import Connection
from two_tower.cli.main import app
from two_tower.errors import UserError
from two_tower.features import DIM
from two_tower.ids import user_uuid
from two_tower.lifecycle.given import read
from two_tower.lifecycle.retrain import surplus
from world_fixtures import make_world, one, refresh, tiny_model

pytestmark = pytest.mark.world

WORLD = make_world()


def run(dsn: str, *arguments: object, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["model", *map(str, arguments), "--json"], env={"DATABASE_URL": dsn})
    assert done.exit_code == code, f"{done.output}{done.exception!r}"
    return json.loads(done.stdout) if code == 0 else done.output


def vectors(ids: list[Any], name: str, path: Path, seed: int = 0, scale: float = 3.0) -> np.ndarray:
    """Writes random vectors of ``ids`` like another program: in double precision, and not of length 1."""
    made = np.random.default_rng(seed).standard_normal((len(ids), DIM)) * scale
    pl.DataFrame({name: [str(i) for i in ids], "embedding": made.tolist()}).write_parquet(path)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Vectors of all but ten videos, of all but five users, and of some unknown ids."""
    nobody = ["ffffffff-ffff-ffff-ffff-ffffffffff" + f"{n:02d}" for n in range(3)]
    videos, users = tmp_path / "videos.parquet", tmp_path / "users.parquet"
    vectors([*WORLD.videos[10:], *nobody], "video_id", videos)
    vectors([*WORLD.users[5:], *nobody[:2]], "user_id", users, seed=1)
    return videos, users


def stored(db: Connection, version: str) -> dict[str, str]:
    return dict(
        db.execute(
            """select video_id::text, embedding::text from two_tower.video_embeddings where model_version = %(v)s
            union all
            select user_id::text, embedding::text from two_tower.user_embeddings where model_version = %(v)s""",
            {"v": version},
        ).fetchall()
    )


def test_given_vectors_are_served_unchanged_and_only_deletions_change_them(
    db: Connection, dsn: str, files: tuple[Path, Path]
) -> None:
    videos, users = files
    dry = run(dsn, "upload-vectors", videos, "--users", users, "--version", "theirs", "--dry-run")
    assert (dry["videos"], dry["unknown_videos"], dry["videos_without"]) == (len(WORLD.videos) - 10, 3, 10)
    assert (dry["users"], dry["unknown_users"]) == (45, 2)
    assert one(db, "select count(*) from two_tower.model_versions where version = 'theirs'") == 0
    done = run(dsn, "upload-vectors", videos, "--users", users, "--version", "theirs")
    assert done == dry | {"dry_run": False}
    assert run(dsn, "activate", "theirs")["previous"] == "v1"

    given = stored(db, "theirs")
    assert len(given) == dry["videos"] + dry["users"]
    known = read(videos, "video_id")
    directions = known["embedding"].to_numpy()
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    for video, direction in zip(known["id"], directions, strict=True):
        if video in given:
            assert np.allclose(json.loads(given[video]), direction, atol=1e-3)

    # A user's list has the videos nearest to the user's vector.
    user = str(WORLD.usual)
    listed = db.execute("select video_id::text from two_tower.recommend_batch(array[%s::uuid], 10)", (user,)).fetchall()
    decided = {str(video) for video in WORLD.decided(WORLD.usual)}
    scores = known["id"].to_list(), directions @ np.array(json.loads(given[user]))
    shown = {str(video) for video in WORLD.published}
    best = [v for v, _ in sorted(zip(*scores, strict=True), key=lambda pair: -pair[1]) if v in shown - decided]
    assert {video for (video,) in listed[:5]} <= set(best[:8])

    # Likes, changed videos, rebuilds and repairs do not change them; the other version is refreshed.
    before, own = given, stored(db, "v1")
    new = next(video for video in WORLD.videos if video not in WORLD.decided(WORLD.usual))
    db.execute(
        "insert into public.user_video_decisions (user_id, video_id, decision_type) values (%s, %s, 'like')",
        (user, new),
    )
    db.execute("update public.videos set maker = 'another' where id = %s", (WORLD.videos[20],))
    refresh(db)
    assert stored(db, "v1")[user] != own[user]
    db.execute("call two_tower.rebuild()")
    assert one(db, "select (two_tower.sync_video_embeddings() ->> 'marked')::int") == 0
    assert stored(db, "theirs") == before
    done = CliRunner().invoke(app, ["verify", "--repair"], env={"DATABASE_URL": dsn})
    assert done.exit_code == 0, done.output
    assert stored(db, "theirs") == before
    problems = {what for (what,) in db.execute("select what from two_tower.problems")}
    assert "coverage" not in problems
    assert one(db, "select follows_likes from two_tower.status") is False
    status = CliRunner().invoke(app, ["status"], env={"DATABASE_URL": dsn})
    assert "theirs, of given vectors: it does not follow likes" in status.output

    # A deleted user's vector is deleted.
    db.execute("delete from auth.users where id = %s", (user,))
    db.execute("delete from public.videos where id = %s", (WORLD.videos[20],))
    db.execute("select two_tower.forget_user(%s)", (WORLD.many,))
    refresh(db)
    gone = {user, str(WORLD.videos[20]), str(WORLD.many)}
    assert stored(db, "theirs") == {key: value for key, value in before.items() if key not in gone}

    # Routines that need towers say that there are none; then roll back.
    for call in ("embed_users(array[%s::uuid], 'theirs')", "embed_videos(array[%s::uuid], 'theirs')"):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="were given, and it computes none"):
            db.execute(
                f"select * from two_tower.{call}".encode(), (WORLD.videos[30] if "videos" in call else WORLD.users[9],)
            )
    assert "no towers" in run(dsn, "export", videos.parent / "exported", "--version", "theirs", code=1)
    assert run(dsn, "rollback")["model_version"] == "v1"
    assert one(db, "select follows_likes from two_tower.status") is True
    run(dsn, "activate", "theirs")
    assert run(dsn, "activate", "v1")["previous"] == "theirs"
    db.execute("select two_tower.retire_model('theirs')")
    assert stored(db, "theirs") == {}


@pytest.mark.parametrize("active", [False, True])
def test_visitors_and_clients_get_lists_from_given_vectors(
    db: Connection, dsn: str, files: tuple[Path, Path], client: Any, active: bool
) -> None:
    run(dsn, "upload-vectors", files[0], "--version", "theirs")
    if active:
        run(dsn, "activate", "theirs")
    liked = [str(v) for v in WORLD.published[:3]]
    assert len(client.rpc("anon", None, "recommend_from", liked=liked, limit=5)) == 5
    assert len(client.rpc("anon", None, "similar_videos", video_id=str(WORLD.published[15]), limit=5)) == 5
    assert len(client.rpc("authenticated", WORLD.usual, "recommend_videos", limit=5)) == 5
    assert client.rpc("authenticated", WORLD.usual, "embed_user")[0]["success"] is True


def test_opted_out_users_have_no_given_vector(db: Connection, dsn: str, files: tuple[Path, Path], client: Any) -> None:
    """Whether users opt out before the upload or after it, their vector is gone at once; others keep theirs."""
    before, after = WORLD.usual, WORLD.users[6]
    client.rpc("authenticated", before, "set_choices", personalised=False)
    run(dsn, "upload-vectors", files[0], "--users", files[1], "--version", "theirs")
    run(dsn, "activate", "theirs")
    others = stored(db, "theirs")
    assert str(before) not in others
    assert others.pop(str(after))
    client.rpc("authenticated", after, "set_choices", personalised=False)
    for user in (before, after):
        reasons = {row["reason"] for row in client.rpc("authenticated", user, "recommend_videos")}
        assert reasons <= {"popular", "newest"}
    refresh(db)
    assert stored(db, "theirs") == others
    client.rpc("authenticated", after, "set_choices", personalised=True)
    refresh(db)
    assert stored(db, "theirs") == others, "nobody computes them anew"


def test_sessions_use_all_128_dimensions_of_given_vectors(
    db: Connection, dsn: str, tmp_path: Path, client: Any
) -> None:
    """Users of our towers have zero in the last one; vectors of another program may use it."""
    db.execute("update two_tower.settings set value = '1' where name = 'least_likers'")
    db.execute("select two_tower.update_popularity()")
    made = np.random.default_rng(3).standard_normal((len(WORLD.videos), DIM)) * 0.1
    made[:, -1] = np.where(np.arange(len(made)) % 2, 1.0, -1.0)
    path = tmp_path / "videos.parquet"
    pl.DataFrame({"video_id": [str(v) for v in WORLD.videos], "embedding": made.tolist()}).write_parquet(path)
    run(dsn, "upload-vectors", path, "--version", "theirs")
    run(dsn, "activate", "theirs")
    side = dict(zip(map(str, WORLD.videos), made[:, -1], strict=True))
    by_likes = db.execute(
        "select video_id::text from two_tower.video_popularity p join two_tower.visible_videos v on v.id = p.video_id"
        " order by likers desc"
    ).fetchall()
    for sign in (1.0, -1.0):
        liked = [video for (video,) in by_likes if side[video] == sign][:3]
        rows = client.rpc("anon", None, "recommend_from", liked=liked, limit=40)
        assert {row["reason"] for row in rows} == {"taste"}
        assert {side[row["video_id"]] for row in rows} == {sign}


@pytest.mark.world(models=2)
def test_retrain_keeps_given_vectors_and_standby_versions_of_experiments(
    db: Connection,
) -> None:
    """Only surplus standby versions are retired, the oldest first; one that never served is as old as its backfill."""
    tiny_model(db, "v3", seed=3, activate=False)
    db.execute("call two_tower.backfill_model('v3', true)")
    db.execute("select two_tower.stage_given('theirs', '{}')")
    db.execute(
        "select two_tower.add_given('theirs', 'video', array[%s], array[%s::extensions.halfvec])",
        (WORLD.videos[0], str([1.0] * DIM)),
    )
    db.execute("select two_tower.close_given('theirs')")
    db.execute("update two_tower.model_versions set state = 'standby' where version in ('v3', 'theirs')")
    states = dict(db.execute("select version, state from two_tower.model_versions").fetchall())
    assert states == {"v1": "standby", "v2": "active", "v3": "standby", "theirs": "standby"}
    assert [surplus(db, keep) for keep in range(4)] == [["v3", "v1"], ["v1"], [], []]


LENGTHS = {"one short": DIM - 1, "one long": DIM + 1, "empty": 0}
BAD: dict[str, pl.DataFrame] = {
    name: pl.DataFrame({"video_id": [str(WORLD.videos[0])], "embedding": [[0.5] * length]})
    for name, length in LENGTHS.items()
} | {
    "zero": pl.DataFrame({"video_id": [str(WORLD.videos[0])], "embedding": [[0.0] * DIM]}),
    "nan": pl.DataFrame({"video_id": [str(WORLD.videos[0])], "embedding": [[float("nan")] * DIM]}),
    "infinite": pl.DataFrame({"video_id": [str(WORLD.videos[0])], "embedding": [[float("inf")] * DIM]}),
    "a hole": pl.DataFrame({"video_id": [str(WORLD.videos[0])], "embedding": [[None] + [0.5] * (DIM - 1)]}),
    "null": pl.DataFrame(
        {"video_id": [str(WORLD.videos[0])] * 2, "embedding": [[0.5] * DIM, None]},
        schema={"video_id": pl.String, "embedding": pl.List(pl.Float64)},
    ),
    "text": pl.DataFrame({"video_id": [str(WORLD.videos[0])], "embedding": ["[1,2]"]}),
    "no id": pl.DataFrame({"video_id": [None], "embedding": [[0.5] * DIM]}, schema_overrides={"video_id": pl.String}),
    "no uuid": pl.DataFrame({"video_id": ["video 7"], "embedding": [[0.5] * DIM]}),
    "no column": pl.DataFrame({"id": ["x"], "embedding": [[0.5] * DIM]}),
    "unknown": pl.DataFrame({"video_id": ["ffffffff-ffff-ffff-ffff-ffffffffff00"], "embedding": [[0.5] * DIM]}),
}


def test_a_file_that_cannot_be_used_is_refused_and_leaves_nothing(db: Connection, dsn: str, tmp_path: Path) -> None:
    for name, frame in BAD.items():
        frame.write_parquet(tmp_path / "bad.parquet")
        said = run(dsn, "upload-vectors", tmp_path / "bad.parquet", code=1)
        assert "error:" in said, name
    (tmp_path / "bad.parquet").write_bytes(b"not Parquet")
    run(dsn, "upload-vectors", tmp_path / "bad.parquet", code=1)
    assert one(db, "select count(*) from two_tower.model_versions") == 1
    vectors(WORLD.videos, "video_id", tmp_path / "good.parquet")
    assert "registered already" in run(dsn, "upload-vectors", tmp_path / "good.parquet", "--version", "v1", code=1)
    assert "current" in run(dsn, "upload-vectors", tmp_path / "good.parquet", "--version", "current", code=1)


def test_vectors_of_any_scale_and_ids_of_any_form_are_read(tmp_path: Path) -> None:
    for scale in (1e-6, 1.0, 1e6):
        expected = vectors(["somebody", "somebody else"], "user_id", tmp_path / "users.parquet", scale=scale)
        found = read(tmp_path / "users.parquet", "user_id")
        made = found["embedding"].to_numpy()
        assert np.allclose(made / np.linalg.norm(made, axis=1, keepdims=True), expected, atol=1e-5)
        assert found["id"].str.contains("^[0-9a-f-]{36}$").all()
    pl.DataFrame({"user_id": ["a", "a"], "embedding": [[1.0] * DIM, [2.0] * DIM]}).write_parquet(tmp_path / "twice")
    assert read(tmp_path / "twice", "user_id")["embedding"].to_list() == [[2.0] * DIM]
    for same in ([7], [7.0], ["7.0"], [" 7 "], [b"7"]):  # a person is the same here as for an import
        pl.DataFrame({"user_id": same, "embedding": [[1.0] * DIM]}).write_parquet(tmp_path / "seven")
        assert read(tmp_path / "seven", "user_id")["id"].to_list() == [str(user_uuid("7"))], same
    with pytest.raises(UserError, match="cannot read"):
        read(tmp_path / "nothing", "user_id")
