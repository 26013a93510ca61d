"""``two-tower dataset``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from two_tower.cli.console import Dsn, Json, Verbs, bar, manual, print_json, say
from two_tower.cli.options import MaxNegativeStars, MinStars, Mode

app = typer.Typer(
    name="dataset", cls=Verbs, no_args_is_help=True, help="Write what the trainer reads, for other trainers."
)


@app.command(
    "export",
    epilog=manual(
        "two-tower dataset export data",
        "two-tower dataset export data --mode reviews --neg-per-pos 3 --run-id friday --snapshot-inputs",
    ),
)
def dataset_export(
    directory: Annotated[Path, typer.Argument(help="Gets runs/<time>/, and latest, a link to the newest.")],
    run_id: Annotated[str | None, typer.Option(help="A name for the run; by default the time, as for auto.")] = None,
    snapshot_inputs: Annotated[
        bool, typer.Option("--snapshot-inputs", help="Keep decisions and reviews as they were, in inputs/.")
    ] = False,
    mode: Mode = "all",
    neg_per_pos: Annotated[
        int, typer.Option(min=0, max=100, help="Negatives to draw per like, into negatives_train.parquet.")
    ] = 0,
    min_stars: MinStars = 4.0,
    max_negative_stars: MaxNegativeStars = 2.0,
    val_ratio: Annotated[float, typer.Option(min=0.01, max=0.9, help="Share of each history held out.")] = 0.2,
    min_likes: Annotated[int, typer.Option(min=0, help="Users with fewer likes are in the training part alone.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the split, where times are unknown.")] = 0,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Write interactions, split, and features of users and items, as Parquet, with summary.json."""
    from two_tower.server.reading import reading
    from two_tower.trainer.dataset import DatasetOptions
    from two_tower.trainer.dataset_export import export

    options = DatasetOptions(mode=mode, min_stars=min_stars, max_negative_stars=max_negative_stars)
    with bar() as progress:
        done = reading(
            dsn,
            lambda connection: export(
                connection,
                directory,
                options,
                run=None if run_id == "auto" else run_id,
                snapshot_inputs=snapshot_inputs,
                neg_per_pos=neg_per_pos,
                val_ratio=val_ratio,
                min_likes=min_likes,
                seed=seed,
                progress=progress,
            ),
            say,
            autocommit=True,
        )
    if json:
        print_json(done)
        return
    typer.echo(done["directory"])
    for name, told in done["files"].items():
        say(f"  {name}: {told['rows']:,} rows")
    for name, told in done["joined"].items():
        if told["rows"]:
            say(f"  {told['with_video']:,} of {told['rows']:,} {name} are of a video that is here ({told['rate']:.1%})")
    say(f"  {done['cids']['with_cid']:,} videos have a CID, {done['cids']['without_cid']:,} have none")
