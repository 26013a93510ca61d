"""``two-tower verify``.

two-tower verify --sample 1000
two-tower verify --repair && two-tower refresh
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from two_tower.cli.console import Dsn, Json, bar, manual, print_json, say
from two_tower.cli.options import Repair, Sample

if TYPE_CHECKING:
    from two_tower.lifecycle.verify import Verified

app = typer.Typer()


@app.command(
    epilog=manual(
        "two-tower verify",
        "two-tower verify --sample 1000",
        "two-tower verify --repair",
        exits="0 nothing differs, or it is in the change log now, 1 something differs, 2 wrong usage",
    )
)
def verify(
    sample: Sample = None,
    repair: Repair = False,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Compare stored features, vectors and tastes with what the rows give.

    They differ if somebody wrote while triggers were disabled, attached or detached a
    partition, or changed stored values. Users and videos that are pending or set aside are
    left out. It takes about as long as a rebuild, writes only a line of the job log, and
    blocks nobody. With --repair, the next refresh mends the differences, and nothing else.
    """
    from two_tower.lifecycle import verify as verification
    from two_tower.server.connection import connect
    from two_tower.server.reading import reading

    marked = 0
    if sample is not None and not repair:
        with bar() as progress:
            found = reading(
                dsn, lambda connection: verification.verify(connection, progress, sample), say, autocommit=True
            )
    else:
        with connect(dsn, autocommit=True, writes=True) as connection, bar() as progress:
            found = verification.verify(connection, progress, sample)
            marked = verification.repair(connection, found) if repair else 0
            if sample is None:
                verification.log(connection, _answer(found, marked))
    answer = _answer(found, marked)
    if json:
        print_json(answer)
    else:
        say(f"{found.users:,} users and {found.videos:,} videos compared")
        for kind, count in found.differing.items():
            if count:
                say(f"{count:,} {kind.replace('_', ' ')} differ from what the rows say")
        if repair and marked:
            say(f"{marked:,} users and videos are in the change log, for the next refresh")
    raise typer.Exit(1 if any(found.differing.values()) and not repair else 0)


def _answer(found: Verified, marked: int) -> dict[str, Any]:
    return {"users": found.users, "videos": found.videos, "differing": found.differing, "marked": marked}
