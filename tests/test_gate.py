"""What ``two-tower evaluate`` compares beside metrics: PyTorch, the engine, and the vectors that are stored."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from conftest import Connection
from two_tower.cli.main import app
from two_tower.lifecycle import gate
from world_fixtures import make_world, random_model, register, schema_of

pytestmark = pytest.mark.world

ROOT = Path(__file__).parent.parent
WORLD = make_world()
LATE = datetime(2026, 1, 1, tzinfo=UTC)
"""Later than every decision of the world."""


def evaluate(dsn: str, *words: str, code: int = 0) -> dict[str, Any]:
    """``two-tower evaluate --json``, which must exit with ``code``."""
    done = CliRunner().invoke(app, ["evaluate", *words, "--dsn", dsn, "--json"])
    assert done.exit_code == code, (done.output, done.exception)
    return dict(json.loads(done.stdout))


def like(db: Connection, at: datetime, users: int = 20) -> None:
    """Three new likes of each of so many users, of videos that they have not decided on."""
    rows = [
        (user, video, at)
        for user in WORLD.users[5 : 5 + users]
        for video in [v for v in WORLD.published if v not in WORLD.decided(user)][:3]
    ]
    with db.cursor() as cursor:
        cursor.executemany(
            """insert into public.user_video_decisions (user_id, video_id, decision_type, created_at)
            values (%s, %s, 'like', %s)""",
            rows,
        )


@pytest.mark.parametrize("waits", ["in the log", "collected", "for a video"])
def test_evaluate_ignores_users_who_wait_for_a_refresh(
    waits: str, db: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if waits == "for a video":
        db.execute(
            """update public.videos set maker = 'another', price = 39 where id in (
                select video_id from public.user_video_decisions group by video_id order by count(*) desc limit 10
            )"""
        )
    else:
        like(db, LATE)
    if waits == "collected":
        db.execute("select two_tower.collect_user_changes()")
    monkeypatch.setattr(gate, "SAMPLE", 1000)
    verdict = evaluate(dsn, "v1")
    assert verdict["reasons"] == []
    assert all(distance is not None and distance < 1e-5 for distance in verdict["parity"].values())


def test_evaluate_goes_by_the_rows_and_not_by_a_stored_input(
    db: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.execute(
        """update two_tower.user_embeddings e set input = o.input, embedding = o.embedding
        from two_tower.user_embeddings o where e.user_id = %s and o.user_id = %s""",
        (WORLD.usual, WORLD.many),
    )
    monkeypatch.setattr(gate, "SAMPLE", 1000)
    verdict = evaluate(dsn, "v1", code=3)
    assert [r for r in verdict["reasons"] if r.startswith("the engine and what is stored, users differ by")]


def test_evaluate_compares_a_candidate_that_has_no_vectors_yet(db: Connection, dsn: str) -> None:
    register(db, random_model(schema_of(db), seed=2), "v2")
    parity = evaluate(dsn, "v2")["parity"]
    assert [what for what, distance in parity.items() if distance is None] == [
        "the engine and what is stored, users",
        "the engine and what is stored, videos",
    ]


# These take changes, or count them by table; whoever asks who waits reads two_tower.pending_users.
MACHINERY = re.compile(
    r"sql/(40_changes|50_refresh)/.*|sql/30_inference/embed_user\.sql|sql/55_jobs/purge_logs\.sql|sql/90_privileges\.sql"
)
READS = re.compile(
    r"""(?<!delete\ )\b(?:from|join|using|table|copy|only)\s+(?:"?two_tower"?\.)?"?user_change(?:s|_log)\b"""
    r"""|(?:\{\w*\}|%I|%s|\|\|\s*')_change(?:s|_log)\b""",
    re.IGNORECASE | re.VERBOSE,
)


def test_only_the_refresh_machinery_reads_the_change_logs() -> None:
    files = [path for folder in ("sql", "py", "plpython") for path in sorted((ROOT / folder).rglob("*.[ps][yq]*"))]
    assert len(files) > 150
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in files
        if path.suffix in (".sql", ".py") and not MACHINERY.fullmatch(str(path.relative_to(ROOT)))
        for match in READS.finditer(path.read_text())
    ]
    assert found == []
