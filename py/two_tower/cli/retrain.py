"""``two-tower retrain``."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from typing import Annotated

import typer

from two_tower.cli.console import Dsn, Json, bar, manual, print_json, say, told_of_failure
from two_tower.cli.options import (
    EmbeddingWorkers,
    Mail,
    MaxNegativeStars,
    MinStars,
    Mode,
    Overrides,
    Seed,
    UsePriceFeature,
    Webhook,
    WithUsers,
    gate_limits,
)

app = typer.Typer()


@app.command(
    epilog=manual(
        "two-tower retrain",
        "two-tower retrain --publish s3://bucket/prefix --webhook https://hooks.example/services/…",
        "0 4 * * 0  two-tower retrain --publish file:///srv/models      (a line of a crontab)",
        exits="0 a new model serves, 1 a step failed, 2 wrong usage, 3 a gate said no; "
        "after 1 and 3 the old model serves",
    )
)
@gate_limits
def retrain(
    publish: Annotated[
        str | None, typer.Option(metavar="URL", help="Publish to file:///path or s3://bucket/prefix as well.")
    ] = None,
    with_users: WithUsers = False,
    webhook: Webhook = None,
    mail: Mail = None,
    keep: Annotated[int, typer.Option(min=1, help="Versions that stay warm behind the active one.")] = 1,
    workers: EmbeddingWorkers = 1,
    overrides: Overrides = None,
    mode: Mode = "all",
    min_stars: MinStars = 4.0,
    max_negative_stars: MaxNegativeStars = 2.0,
    use_price_feature: UsePriceFeature = False,
    seed: Seed = 0,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Train a new model, and serve it if it is good: the weekly run.

    Train, evaluate, register, backfill, run the gate, activate, publish, notify. After
    any failure the previous model keeps serving, even if the failure comes after the
    activation. Webhook and mail report the outcome.
    """
    from two_tower.lifecycle.retrain import Plan
    from two_tower.lifecycle.retrain import retrain as run
    from two_tower.notify import channels
    from two_tower.server.connection import connect
    from two_tower.trainer.dataset import DatasetOptions
    from two_tower.trainer.options import TrainOptions

    plan = Plan(
        dataset=DatasetOptions(mode=mode, min_stars=min_stars, max_negative_stars=max_negative_stars),
        training=TrainOptions(seed=seed, use_price_feature=use_price_feature),
        overrides=overrides or {},
        publish=publish,
        publish_users=with_users,
        channels=channels(webhook, mail),
        keep=keep,
        workers=workers,
        dsn=dsn,
    )
    with ExitStack() as stack:
        # The run itself reports later failures, with the resulting state of the models.
        with told_of_failure(plan.channels, "retraining"):
            connection = stack.enter_context(connect(dsn, autocommit=True, writes=True))
        progress = stack.enter_context(bar())
        try:
            done = run(connection, plan, progress)
        except Exception as error:
            for warning in getattr(error, "__notes__", []):
                say(f"warning: {warning}")
            raise
    for warning in done.warnings:
        say(f"warning: {warning}")
    if json:
        print_json(asdict(done))
    else:
        say(f"{done.version} is active" + (f"; {done.previous} stands by" if done.previous else ""))
