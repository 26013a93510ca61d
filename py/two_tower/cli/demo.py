"""``two-tower demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from two_tower.cli.console import manual

app = typer.Typer()


@app.command(epilog=manual("two-tower demo", "two-tower demo --catalog catalog.csv --reviews reviews.csv"))
def demo(
    catalog: Annotated[Path | None, typer.Option(help="Your own catalogue, instead of the generated world.")] = None,
    reviews: Annotated[Path | None, typer.Option(help="Your own reviews; together with --catalog.")] = None,
) -> None:
    """Show the whole path on a small world: import, train, activate, like, refresh, recommend.

    In database two_tower_demo of the embedded server, made anew each time.
    """
    from two_tower.cli.walkthrough import run

    run(catalog, reviews)
