"""``two-tower demo``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from two_tower.cli.console import manual, say
from two_tower.errors import UserError

app = typer.Typer()


@app.command(
    epilog=manual(
        "two-tower demo", "two-tower demo --no-ui", "two-tower demo --catalog catalog.csv --reviews reviews.csv"
    )
)
def demo(
    catalog: Annotated[Path | None, typer.Option(help="Your own catalogue, instead of the generated world.")] = None,
    reviews: Annotated[Path | None, typer.Option(help="Your own reviews; together with --catalog.")] = None,
    ui: Annotated[
        bool | None,
        typer.Option(
            "--ui/--no-ui",
            help="Serve the page of two-tower ui at the end; by default on a terminal.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="TCP port of the page; where it is taken, another.")
    ] = 8501,
) -> None:
    """Show the whole path on a small data set: import, train, activate, like, refresh, recommend.

    It uses the database two_tower_demo of the embedded server, which it recreates each time.
    On a terminal it ends with the address of a page on the demo's data, which it serves
    until Ctrl-C.
    """
    from two_tower.cli import ui as page
    from two_tower.cli.walkthrough import run, show

    wanted = ui if ui is not None else sys.stdout.isatty() and page.installed()
    if wanted and not page.installed():
        raise UserError("the page needs streamlit, which is not installed", "pip install 'pg-two-tower[ui]'")
    dsn = run(catalog, reviews)
    if wanted:
        show(dsn, port)
    else:
        say(f"Look around: two-tower ui --dsn '{dsn}'")
