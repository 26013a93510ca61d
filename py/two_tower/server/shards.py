"""The state of all shards, side by side; :mod:`two_tower.server.status` shows one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

import psycopg

from two_tower.errors import UserError
from two_tower.server import status
from two_tower.shards import Connection, Shard, bytes_behind, connect, lacking, last_served, on_each, why

Row = dict[str, Any]
Failure = UserError | psycopg.Error


def look(shards: Sequence[Shard]) -> list[Row]:
    """A row for each shard: the version it serves, its freshness, its lag behind the first, and its ``problems``.

    For a shard that is down, the others report the version that it served when last asked.
    """
    names = [shard.name for shard in shards]
    with ExitStack() as stack:

        def open_one(_: str, shard: Shard) -> Connection | Failure:
            try:
                return stack.enter_context(connect(shard, autocommit=False))
            except (UserError, psycopg.Error) as error:
                return error

        def ask(name: str, connection: Connection) -> Row | Failure:
            try:
                return _row(name, connection, subscribes=name != names[0])
            except (UserError, psycopg.Error) as error:
                return error

        opened = on_each({shard.name: shard for shard in shards}, open_one)
        up = {name: found for name, found in opened.items() if not isinstance(found, Exception)}
        failures = {name: found for name, found in opened.items() if isinstance(found, Exception)}
        answers = on_each(up, ask)
        failures |= {name: found for name, found in answers.items() if isinstance(found, Exception)}
        rows = {name: found for name, found in answers.items() if not isinstance(found, Exception)}
        for name in rows.keys() - {names[0]}:
            with suppress(psycopg.Error):  # it may have gone down since
                rows[name]["bytes_behind"] = bytes_behind(up[names[0]], up[name]) if names[0] in rows else None
        answering = [up[name] for name in rows]
        for name, error in failures.items():
            if isinstance(error, UserError):  # it is up, but not migrated, or not as this program is
                rows[name] = _unknown(name, "unfit", error.message, error.hint or f"until then: --without {name}")
            else:
                known = _last_served(answering, name)
                rows[name] = _unknown(name, "down", f"{known}: {why(error)}", f"start it; until then: --without {name}")
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


def _last_served(known_by: Sequence[Connection], name: str) -> str:
    for connection in known_by:
        with suppress(psycopg.Error):
            return last_served(connection, name)
    return f"{name} is down"


def _row(name: str, connection: Connection, *, subscribes: bool) -> Row:
    report = status.look(connection)
    problems = list(report.problems)
    if subscribes and (missing := lacking(connection)):
        problems.append(
            {
                "what": "subscription",
                "detail": f"no subscription brings {', '.join(missing)}, or it has not copied them yet",
                "remedy": "alter subscription … refresh publication, or create it as docs/scaling.md says",
            }
        )
    found = report.status
    return {
        "shard": name,
        "serves": found["active_version"],
        "lag_seconds": found["lag_seconds"],
        "pending": found["pending_user_changes"] + found["pending_video_changes"],
        "users": found["users_with_likes"],
        "bytes_behind": None,
        "problems": problems,
    }


def _unknown(name: str, what: str, detail: str, remedy: str) -> Row:
    row: Row = dict.fromkeys(("shard", "serves", "lag_seconds", "pending", "users", "bytes_behind"))
    return row | {"shard": name, "problems": [{"what": what, "detail": detail, "remedy": remedy}]}
