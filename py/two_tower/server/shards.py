"""The state of all shards, side by side; :mod:`two_tower.server.status` shows one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from two_tower.errors import UserError
from two_tower.server import status
from two_tower.shards import (
    Connection,
    Shard,
    ask_each,
    bytes_behind,
    connect,
    is_down,
    lacking,
    last_served,
    slots,
    why,
)

Row = dict[str, Any]


def look(shards: Sequence[Shard]) -> list[Row]:
    """A row for each shard: the version it serves, its freshness, its lag behind the first, and its ``problems``.

    For a shard that is down, the others report the version that it served when last asked.
    """
    names = [shard.name for shard in shards]
    with ExitStack() as stack:
        opened, failures = ask_each(
            {shard.name: shard for shard in shards}, lambda _, shard: stack.enter_context(connect(shard))
        )
        answers, broken = ask_each(opened, lambda name, connection: _ask(connection, first=name == names[0]))
    behind = answers[names[0]].behind if names[0] in answers else {}
    known = next((answer.last_served for answer in answers.values()), None)
    rows = {}
    for name, answer in answers.items():
        late = [behind[slot] for slot in answer.slots if slot in behind]
        rows[name] = {"shard": name, **answer.row, "bytes_behind": max(late, default=None)}
    for name, error in (failures | broken).items():
        if isinstance(error, UserError):  # it is up, but not migrated, or not as this program is
            rows[name] = _unknown(name, "unfit", error.message, error.hint or f"until then: --without {name}")
        else:
            said = f"{name} is down" if known is None else is_down(name, known)
            rows[name] = _unknown(name, "down", f"{said}: {why(error)}", f"start it; until then: --without {name}")
    served = {row["serves"] for row in rows.values() if row["serves"] is not None}
    if len(served) > 1:
        first = rows[names[0]]
        first["problems"].append(
            {
                "what": "versions",
                "detail": "shards serve different versions: "
                + ", ".join(f"{name} {rows[name]['serves'] or 'none'}" for name in names),
                "remedy": f"two-tower shards activate {first['serves'] or sorted(served)[-1]}",
            }
        )
    return [rows[name] for name in names]


@dataclass(frozen=True)
class _Answer:
    """What one shard says."""

    row: Row
    last_served: dict[str, str]
    slots: list[str] = field(default_factory=list)
    """On the first shard."""
    behind: dict[str, int] = field(default_factory=dict)
    """Bytes by slot, if it is the first."""


def _ask(connection: Connection, *, first: bool) -> _Answer:
    report = status.look(connection)
    problems = list(report.problems)
    if not first and (missing := lacking(connection)):
        problems.append(
            {
                "what": "subscription",
                "detail": f"no subscription brings {', '.join(missing)}, or it has not copied them yet",
                "remedy": "alter subscription … refresh publication, or create it as docs/scaling.md says",
            }
        )
    found = report.status
    row = {
        "serves": found["active_version"],
        "lag_seconds": found["lag_seconds"],
        "pending": found["pending_user_changes"] + found["pending_video_changes"],
        "users": found["users_with_likes"],
        "problems": problems,
    }
    if first:
        return _Answer(row, last_served(connection), behind=bytes_behind(connection))
    return _Answer(row, last_served(connection), slots(connection))


def _unknown(name: str, what: str, detail: str, remedy: str) -> Row:
    row: Row = dict.fromkeys(("shard", "serves", "lag_seconds", "pending", "users", "bytes_behind"))
    return row | {"shard": name, "problems": [{"what": what, "detail": detail, "remedy": remedy}]}
