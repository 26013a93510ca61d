"""``two-tower train`` and ``evaluate``: making a model, and measuring it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from two_tower.cli.console import Dsn, Json, bar, history_table, manual, metrics_table, out, print_json, say
from two_tower.cli.options import (
    MaxNegativeStars,
    MinStars,
    Overrides,
    Seed,
    UsePriceFeature,
    gate_limits,
)
from two_tower.metrics import HEADLINE, TITLES

app = typer.Typer()


@app.command(
    epilog=manual(
        "two-tower train",
        "two-tower train --min-stars 3.5 --version friday",
        "two-tower train --search 50 --search-timeout 3600",
        "two-tower train --json",
    )
)
def train(
    min_stars: MinStars = 4.0,
    max_negative_stars: MaxNegativeStars = 2.0,
    max_tag_features: Annotated[int, typer.Option(min=0, help="Tags with an input of their own.")] = 2_000,
    max_performer_features: Annotated[int, typer.Option(min=0, help="Performers with an input of their own.")] = 5_000,
    max_video_features: Annotated[
        int | None,
        typer.Option(min=0, show_default="all with enough likes", help="Videos with an input of their own."),
    ] = None,
    min_video_likes: Annotated[int, typer.Option(min=1, help="Likes that such a video must have.")] = 2,
    use_price_feature: UsePriceFeature = False,
    val_ratio: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share of each history held out to measure.")
    ] = 0.2,
    split: Annotated[
        Literal["user", "temporal"],
        typer.Option(help="Hold out the latest of each user's decisions, or everybody's from one point in time on."),
    ] = "user",
    epochs: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default="0, or 10 with --loss, or where the catalogue is too large for the closed form",
            help="Go on by gradients, at most so long, and keep the epoch that validation finds best, if any.",
        ),
    ] = None,
    loss: Annotated[
        Literal["softmax", "bce"] | None, typer.Option(help="What gradients minimise; softmax if not said.")
    ] = None,
    neg_per_pos: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default="4",
            help="Negatives per like that gradients draw from what a user is not known to know. The closed form, and "
            "a softmax over a catalogue of up to 20,000, count all of that already.",
        ),
    ] = None,
    search: Annotated[
        int, typer.Option(min=0, metavar="N", help="Tune hyperparameters by N trials, over all runs on the study.")
    ] = 0,
    search_timeout: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Begin no further trial after so long.")
    ] = None,
    study: Annotated[
        Path, typer.Option(help="Where trials are kept (SQLite); the same command goes on from there.")
    ] = Path("two-tower-study.sqlite"),
    seed: Seed = 0,
    version: Annotated[str | None, typer.Option(help="A name for the model; by default the time.")] = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Train both towers on what the database knows, measure them, and register the model as a candidate.

    Several processes share the gradients: torchrun --nproc-per-node 2 -m two_tower train --epochs 10.
    """
    from two_tower.lifecycle import registry
    from two_tower.server.connection import connect
    from two_tower.trainer import gradient
    from two_tower.trainer.dataset import DatasetOptions, read
    from two_tower.trainer.evaluate import behind

    if version is not None:
        registry.require_version_name(version)  # not after hours of training
    options = DatasetOptions(
        min_stars=min_stars,
        max_negative_stars=max_negative_stars,
        max_tag_features=max_tag_features,
        max_performer_features=max_performer_features,
        max_video_features=max_video_features,
        min_video_likes=min_video_likes,
    )
    with gradient.joined() as processes:
        if processes.rank:
            gradient.follow(processes)
            return
        with connect(dsn, autocommit=True, writes=True) as connection, bar() as progress:
            progress("reading", 0.0)
            data = read(connection, options)
            from two_tower.lifecycle.gate import judge
            from two_tower.trainer.options import TrainOptions
            from two_tower.trainer.train import fit

            chosen = TrainOptions(
                seed=seed,
                val_ratio=val_ratio,
                use_price_feature=use_price_feature,
                split=split,
                epochs=gradient.Recipe.epochs if epochs is None and loss else epochs,
                loss=loss or gradient.Recipe.loss,
                neg_per_pos=neg_per_pos,
                search=search,
                search_timeout=search_timeout,
                study=str(study),
            )
            model = fit(data, chosen, progress, processes)
            registered = registry.register(connection, model, data, version)
            reasons = judge(connection, registered)
    if json:
        print_json(
            {
                "version": registered,
                "metrics": model.metrics,
                "hyperparameters": model.hyperparameters,
                "reasons": reasons,
            }
        )
    else:
        held_out = model.hyperparameters.get("held_out", "likes")
        out.print(metrics_table(model.metrics, f"{registered}: measured on likes held out, {held_out}"))
        if by_history := history_table(model.metrics):
            out.print(by_history)
        for finding in behind(model.metrics):
            say(finding)
        say(f"{registered} is registered; serve it with `two-tower model activate`")
        if reasons:
            say(f"  as things are, the gate refuses it: {'; '.join(reasons)}")


@app.command(
    epilog=manual(
        "two-tower evaluate",
        "two-tower evaluate friday --min-recall 0.2 --max-drop 0.02",
        exits="0 good enough, 1 it failed, 2 wrong usage, 3 a threshold is missed",
    )
)
@gate_limits
def evaluate(
    version: Annotated[str | None, typer.Argument(help="A version; by default the newest.")] = None,
    overrides: Overrides = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Measure a version beside references and the active version, and ask the gate.

    On likes that came since both were trained, where 200 users have some; else as
    held out of their trainings. Also compares PyTorch, ONNX and stored vectors by
    cosine. Limits are settings of the database; an option overrides one for once.
    """
    from dataclasses import asdict

    from two_tower.errors import GateFailed
    from two_tower.lifecycle import gate
    from two_tower.lifecycle.registry import newest
    from two_tower.server.connection import connect
    from two_tower.trainer.evaluate import behind

    with connect(dsn, autocommit=True) as connection:
        found = gate.measure(connection, version or newest(connection))
        reasons = gate.judge(connection, found.version, found.numbers(), overrides)
    if json:
        print_json(asdict(found) | {"reasons": reasons})
    else:
        out.print(metrics_table(found.metrics, f"{found.version}: {found.measured_on}"))
        if by_history := history_table(found.metrics):
            out.print(by_history)
        for finding in behind(found.metrics):
            say(finding)
        if found.incumbent:
            on = "the same likes" if found.fresh else "likes held out of its own training"
            figures = (
                f"{TITLES[name]} {'not measured' if value is None else f'{value:.4f}'}"
                for name in HEADLINE
                for value in (found.incumbent.metrics.get(name),)
            )
            say(f"active {found.incumbent.version}, on {on}: {', '.join(figures)}")
        for what, distance in found.parity.items():
            say(f"cosine distance between {what}: {'not stored yet' if distance is None else f'{distance:.1e}'}")
    if reasons:
        raise GateFailed(f"{found.version} falls short: " + "; ".join(reasons))
