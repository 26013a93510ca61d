"""``two-tower dataset``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from two_tower.cli.console import Dsn, Json, Verbs, bar, manual, print_json, say
from two_tower.cli.options import MaxNegativeStars, MinStars

app = typer.Typer(
    name="dataset", cls=Verbs, no_args_is_help=True, help="Write what the trainer reads, for other trainers."
)


@app.command("export", epilog=manual("two-tower dataset export data", "two-tower dataset export data --val-ratio 0.1"))
def dataset_export(
    directory: Annotated[Path, typer.Argument(help="Gets runs/<time>/, and latest, which leads to the newest.")],
    min_stars: MinStars = 4.0,
    max_negative_stars: MaxNegativeStars = 2.0,
    val_ratio: Annotated[float, typer.Option(min=0.01, max=0.9, help="Share of each history held out.")] = 0.2,
    min_likes: Annotated[int, typer.Option(min=0, help="Users with fewer likes are in the training part alone.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the split, where times are unknown.")] = 0,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Write interactions, split, and features of users and items, as Parquet, with summary.json."""
    from two_tower.server.connection import connect
    from two_tower.trainer.dataset import DatasetOptions
    from two_tower.trainer.dataset_export import export

    options = DatasetOptions(min_stars=min_stars, max_negative_stars=max_negative_stars)
    with connect(dsn, autocommit=True) as connection, bar() as progress:
        done = export(
            connection, directory, options, val_ratio=val_ratio, min_likes=min_likes, seed=seed, progress=progress
        )
    if json:
        print_json(done)
        return
    typer.echo(done["directory"])
    for name, told in done["files"].items():
        say(f"  {name}: {told['rows']:,} rows")
