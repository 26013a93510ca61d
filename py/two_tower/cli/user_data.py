"""``two-tower user-data``.

two-tower user-data 3c65a75a-c32d-54e0-9aff-b58b3386e4ec --output person.json
two-tower user-data reviewer-17
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from two_tower.cli.console import Dsn, manual, print_json, say, write_text

if TYPE_CHECKING:
    import psycopg

app = typer.Typer()


@app.command(
    epilog=manual(
        "two-tower user-data 3c65a75a-c32d-54e0-9aff-b58b3386e4ec --output person.json",
        "two-tower user-data reviewer-17",
        exits="0 written, 1 the work failed, 2 wrong usage",
    )
)
def user_data(
    user: Annotated[
        str, typer.Argument(metavar="USER", help="The user's id, or the reviewer's as it stood in the file.")
    ],
    dsn: Dsn = None,
    output: Annotated[Path | None, typer.Option(help="File to write; else it is printed.")] = None,
) -> None:
    """Write all that is kept of a user as JSON: choices, decisions, reviews, what was shown, features, vectors.

    Users get their own by the RPC export_user_data.
    """
    from two_tower.ids import user_uuid
    from two_tower.rows import one
    from two_tower.server.reading import reading

    def read(connection: psycopg.Connection[Any]) -> dict[str, Any]:
        return dict(one(connection, "select public.export_user_data(%s)", (user_uuid(user),)))

    data = reading(dsn, read, say)
    if output is None:
        print_json(data)
    else:
        write_text(output, json.dumps(data, ensure_ascii=False, indent=2) + "\n")
