"""``two-tower recommend``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from two_tower.cli.console import Dsn, Json, bar, manual, print_json, say

app = typer.Typer()


@app.command(
    epilog=manual(
        "two-tower recommend --all --limit 20 --output recs.csv",
        "two-tower recommend --user 7f0e… --user 9a31… --output two.parquet",
    )
)
def recommend(
    output: Annotated[Path, typer.Option(help="A file that ends in .csv or .parquet.")],
    user: Annotated[
        list[str] | None, typer.Option("--user", metavar="ID", help="For this user; may be repeated.")
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="For every user.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Videos per user.")] = 20,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=32,
            help="Connections that ask side by side; else one for each core here, at most 4, and one through a pooler.",
        ),
    ] = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Write recommendations to a file: user_id, video_id, product_url, score, rank."""
    from two_tower.lifecycle.recommend import write
    from two_tower.server.reading import reading

    if everyone == bool(user):
        raise typer.BadParameter("say either --all or --user ID")
    with bar() as progress:
        rows = reading(
            dsn,
            lambda connection: write(connection, None if everyone else user, limit, output, progress, workers),
            say,
            autocommit=True,
        )
    if json:
        print_json({"output": output, "rows": rows})
    else:
        say(f"{rows} rows in {output}")
