"""``two-tower forget``.

two-tower forget 3c65a75a-c32d-54e0-9aff-b58b3386e4ec
two-tower forget reviewer-17
"""

from __future__ import annotations

from typing import Annotated

import typer

from two_tower.cli.console import Dsn, Json, manual, print_json

app = typer.Typer()


@app.command(
    epilog=manual(
        "two-tower forget 3c65a75a-c32d-54e0-9aff-b58b3386e4ec",
        "two-tower forget reviewer-17",
        exits="0 nothing is left of the user, 1 the work failed, 2 wrong usage",
    )
)
def forget(
    user: Annotated[
        str, typer.Argument(metavar="USER", help="The user's id, or the reviewer's as it stood in the file.")
    ],
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Remove all that is kept of a user: decisions, reviews, features, vectors, choices, what was shown.

    This also works for a reviewer without an account. It does not delete accounts, which is
    the application's task; deleting an account makes this call unnecessary. The next count of
    popularity, and the next training, leave the user out.
    """
    from two_tower.ids import user_uuid
    from two_tower.rows import one
    from two_tower.server.connection import connect

    user_id = user_uuid(user)
    with connect(dsn, writes=True) as connection:
        removed: dict[str, int] = one(connection, "select two_tower.forget_user(%s)", (user_id,))
    if json:
        print_json({"user_id": str(user_id), "removed": removed})
        return
    for kind in ("decisions", "reviews", "impressions", "choices", "features", "vectors"):
        if removed[kind]:
            typer.echo(f"{removed[kind]:,} {kind} removed")
    if not any(removed.values()):
        typer.echo(f"nothing is known of user {user_id}")
