"""``two-tower refresh``."""

from __future__ import annotations

import json as jsonlib
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from two_tower.cli.console import Dsn, Json, bar, manual, print_json, say

if TYPE_CHECKING:
    from two_tower.lifecycle.registry import Refreshed

app = typer.Typer()


@app.command(
    epilog=manual(
        "two-tower refresh",
        "two-tower refresh --recent '2 hours'",
        "two-tower refresh --include-existing --min-likes 5 --dry-run",
        "two-tower refresh --every 10",
    )
)
def refresh(
    recent: Annotated[
        str | None,
        typer.Option(metavar="INTERVAL", help="First mark users with a decision in the last '2 hours', say."),
    ] = None,
    min_likes: Annotated[int | None, typer.Option(min=1, help="First mark users with this many likes or more.")] = None,
    include_existing: Annotated[
        bool, typer.Option("--include-existing", help="Mark users who have all their vectors, too.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Look at no more users and videos than this.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what there is to do, and change nothing.")] = False,
    every: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            show_default=False,
            help="Refresh again and again, and run the other jobs when they are due, until SIGTERM or SIGINT.",
        ),
    ] = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Bring features and vectors up to date with what has changed.

    Triggers mark changed users and videos, which are always refreshed. The options
    first mark more users, those who match all options: by default those who lack a
    vector of the active or a standby version, with --include-existing everyone. If the
    input is the same, the vector stays as it is. Several refreshes may run side by side.
    A user that fails is set aside and retried later, and does not make the command fail
    (see two_tower.failed_changes). Afterwards, popularity is counted and logs are purged
    if that is due.

    --every SECONDS replaces pg_cron: a service that prints a line for each round that
    did something, and reconnects after the database was down.
    """
    import time

    from two_tower.lifecycle import registry
    from two_tower.server.connection import connect, resolve_dsn

    marks = (recent, min_likes or 1, include_existing) if recent or min_likes or include_existing else None
    if every is not None:
        from two_tower.lifecycle.refresh_service import serve

        if marks or limit or dry_run:
            raise typer.BadParameter("goes with --dsn and --json alone", param_hint="--every")
        serve(resolve_dsn(dsn), every, lambda done: _tell_round(done, json), say)
        return
    started = time.perf_counter()
    with connect(dsn, autocommit=True, writes=True) as connection, bar() as progress:
        if dry_run:
            pending = registry.pending(connection)
            found = registry.stale_users(connection, *marks, limit) if marks else 0
            answer = {"pending_users": pending["users"], "pending_videos": pending["videos"], "to_mark": found}
            if json:
                print_json(answer)
            else:
                say(f"pending: {pending['users']} users and {pending['videos']} videos; {found} more users to mark")
            return
        marked = registry.mark_users(connection, *marks, limit) if marks else 0
        done: dict[str, Any] = {"marked": marked, **registry.refresh(connection, progress, limit).counts}
    done["seconds"] = round(time.perf_counter() - started, 3)
    if json:
        print_json(done)
    else:
        say(f"{_refreshed(done)}, in {done['seconds']} s")


def _refreshed(counts: dict[str, Any]) -> str:
    return (
        f"{counts['users']} users and {counts['videos']} videos looked at, {counts['vectors']} vectors written, "
        f"{counts['failed']} set aside"
    )


def _tell_round(done: Refreshed, json: bool) -> None:
    """A line on standard output for a round of ``refresh --every``."""
    if json:
        line = jsonlib.dumps({**done.counts, "jobs": done.jobs}, default=str, ensure_ascii=False)
    else:
        jobs = (f"{job} " + ", ".join(f"{k}: {v}" for k, v in result.items()) for job, result in done.jobs.items())
        line = "; ".join([f"{datetime.now():%Y-%m-%d %H:%M:%S} {_refreshed(done.counts)}", *jobs])
    typer.echo(" ".join(line.splitlines()))  # an error may have several
    sys.stdout.flush()
