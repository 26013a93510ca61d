"""``two-tower refresh``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from two_tower.cli.console import Dsn, Json, bar, manual, print_json, say

app = typer.Typer()


@app.command(
    epilog=manual(
        "two-tower refresh",
        "two-tower refresh --recent '2 hours'",
        "two-tower refresh --include-existing --min-likes 5 --dry-run",
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
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Bring features and vectors up to date with what has changed.

    Changes mark their users and videos themselves, and what is marked is always
    refreshed. The options mark more users before that, those who fit all of them:
    by default those who lack a vector of a version that is served or kept ready,
    with --include-existing everyone. Where the input is the same, the vector stays
    as it is. Several may run side by side; a user that fails is set aside, retried
    later, and is no failure of the command (see two_tower.failed_changes).
    """
    import time

    from two_tower.lifecycle import registry
    from two_tower.server.connection import connect

    marks = (recent, min_likes or 1, include_existing) if recent or min_likes or include_existing else None
    started = time.perf_counter()
    with connect(dsn, autocommit=True) as connection, bar() as progress:
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
        done: dict[str, Any] = {"marked": marked, **registry.refresh(connection, progress, limit)}
    done["seconds"] = round(time.perf_counter() - started, 3)
    if json:
        print_json(done)
    else:
        say(
            f"{done['users']} users and {done['videos']} videos looked at, {done['vectors']} vectors written, "
            f"{done['failed']} set aside, in {done['seconds']} s"
        )
