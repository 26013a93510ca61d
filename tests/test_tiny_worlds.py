"""Tiny data: one or two users, one or two videos, all alike. Training ends with a model that serves, or with a clear
error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from tiers import some
from two_tower.cli.main import app

Likes = list[tuple[int, int, str]]
WORLDS: dict[str, tuple[int, Likes, str]] = {
    "nobody": (5, [], ""),
    "one user": (50, [(0, v, "like") for v in range(20)], "tag"),
    "one user, one video": (1, [(0, 0, "like")], ""),
    "two users, other likes": (20, [(u, v, "like") for u in range(2) for v in range(u, 20, 2)], "tag"),
    "two users, same likes": (20, [(u, v, "like") for u in range(2) for v in range(20)], ""),
    "one video": (1, [(u, 0, "like") for u in range(20)], "tag"),
    "two videos": (2, [(u, v, ("like", "nope")[(u + v) % 2]) for u in range(20) for v in range(2)], ""),
    "only nopes": (10, [(u, v, "nope") for u in range(5) for v in range(10)], "tag"),
    "only skips": (10, [(u, v, "skip") for u in range(5) for v in range(10)], "tag"),
    "everything is decided": (9, [(u, v, ("nope", "like")[u * v % 3 > 0]) for u in range(9) for v in range(9)], "tag"),
    "many tags": (
        10,
        [(u, (u * 3 + v) % 10, "like") for u in range(10) for v in range(5)],
        "|".join(map(str, range(3000))),
    ),
    "all like one": (10, [(u, 0, "like") for u in range(20)], "tag"),
    "all like all": (20, [(u, v, "like") for u in range(20) for v in range(20)], ""),
}


ALIKE = (
    "only skips",
    "everything is decided",
    "many tags",
    "one user",
    "two users, same likes",
    "one video",
    "all like one",
)
"""Similar to other cases, and left to ``make soak``."""


@pytest.mark.parametrize("split", some(["user", "temporal"], 1))
def test_training_on_tiny_data_gives_a_model_or_a_clear_error(
    database: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    split: str,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    dsn = database()
    monkeypatch.setenv("DATABASE_URL", dsn)

    def two_tower(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, list(words))
        assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.exc_info)
        return result.exit_code, result.output

    for name, (videos, decisions, tag) in WORLDS.items():
        if name in ALIKE and not request.config.getoption("--soak"):
            continue
        with psycopg.connect(dsn, autocommit=True) as db:
            db.execute("truncate public.videos, auth.users, public.tags cascade")
        lines = [f"v/{v},Title {v},{tag and tag + str(v % 3)}" for v in range(videos)]
        Path("catalog.csv").write_text("\n".join(["product_url,title,tags", *lines, ""]))
        lines = [f"u{u},v/{v},{word},2026-01-{1 + (u * 7 + v) % 28:02d}" for u, v, word in decisions]
        Path("decisions.csv").write_text("\n".join(["user_id,product_url,decision,created_at", *lines, ""]))
        assert two_tower("import", "catalog", "catalog.csv")[0] == 0, name
        assert two_tower("import", "decisions", "decisions.csv", "--create-users")[0] == 0, name
        version = name.replace(" ", "-").replace(",", "")
        code, output = two_tower("train", "--split", split, "--version", version)
        if not any(word == "like" for *_, word in decisions):
            assert code == 1, name
            assert "there are no likes to learn from" in output
            continue
        if code:
            assert "point in time" in output or "cannot be measured" in output, (name, output)
            with psycopg.connect(dsn, autocommit=True) as db:
                left = db.execute("select from two_tower.model_versions where version = %s", (version,)).fetchall()
            assert left == [], f"{name}: what was refused is registered"
            continue
        assert two_tower("model", "activate", version, "--force")[0] == 0, name
        with psycopg.connect(dsn, autocommit=True) as db:
            embedded = db.execute("select count(*) from public.user_embeddings").fetchone()
            assert embedded == (len({u for u, _, word in decisions if word == "like"}),), name
