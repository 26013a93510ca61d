"""``two-tower train`` and ``evaluate``."""

from __future__ import annotations

import json as jsonlib
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from two_tower.cli.console import (
    Dsn,
    Json,
    bar,
    history_table,
    manual,
    metrics_table,
    out,
    print_json,
    say,
    told_of_failure,
)
from two_tower.cli.options import (
    Mail,
    MaxNegativeStars,
    MinStars,
    Mode,
    Overrides,
    Seed,
    UsePriceFeature,
    Webhook,
    gate_limits,
)
from two_tower.metrics import HEADLINE, TITLES

if TYPE_CHECKING:
    import psycopg

app = typer.Typer()

Ks = Annotated[
    list[int] | None,
    typer.Option(
        "--k",
        "--recall-k",
        min=1,
        max=1000,
        metavar="N",
        show_default="20",
        help="Length of lists to measure beside 20, which the gate goes by; may be repeated.",
    ),
]


@app.command(
    epilog=manual(
        "two-tower train",
        "two-tower train --min-stars 3.5 --version friday",
        "two-tower train --search 50 --search-timeout 3600",
        "two-tower train --epochs 10 --lr 0.05 --lr-decay cosine --batch-size 1024",
        "two-tower train --train data/latest/interactions_train.parquet --val data/latest/interactions_val.parquet"
        " --items data/latest/item_features.parquet --out-dir artifacts",
        "two-tower train --json",
    )
)
def train(
    train_file: Annotated[
        Path | None,
        typer.Option("--train", metavar="FILE", help="Interactions to train on, in place of those of a database."),
    ] = None,
    val_file: Annotated[
        Path | None, typer.Option("--val", metavar="FILE", help="With --train: interactions held out to measure.")
    ] = None,
    items_file: Annotated[
        Path | None, typer.Option("--items", "--item-features", metavar="FILE", help="With --train: the catalogue.")
    ] = None,
    item_key: Annotated[
        str, typer.Option(metavar="COLUMN", help="With --train: the column that names an item in all of the files.")
    ] = "video_id",
    out_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With --train: gets runs/VERSION/, and latest, a link to the newest."),
    ] = None,
    mode: Mode = "all",
    min_stars: MinStars = 4.0,
    max_negative_stars: MaxNegativeStars = 2.0,
    max_tag_features: Annotated[int, typer.Option(help="Tags with an input of their own; 0 or less is all.")] = 2_000,
    max_performer_features: Annotated[
        int, typer.Option(help="Performers with an input of their own; 0 or less is all.")
    ] = 5_000,
    max_video_features: Annotated[
        int | None,
        typer.Option(show_default="all with enough likes", help="Videos with an input of their own; 0 or less is all."),
    ] = None,
    min_video_likes: Annotated[int, typer.Option(min=1, help="Likes that such a video must have.")] = 2,
    use_price_feature: UsePriceFeature = False,
    disable_user_features: Annotated[
        bool,
        typer.Option("--disable-user-features", help="Count users by what they like alone, not by its tags, makers, …"),
    ] = False,
    k: Ks = None,
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
            show_default="0; 10 with --loss or another option of gradients",
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
            max=100,
            show_default="4",
            help="Negatives per like that gradients draw from what a user is not known to know. The closed form, and "
            "a softmax over a catalogue of up to 20,000, count all of that already.",
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            "--lr",
            min=1e-6,
            max=1,
            show_default="0.1",
            help="Of gradients: how far the first step moves a weight, as a share of the mean size of its table.",
        ),
    ] = None,
    lr_decay: Annotated[
        Literal["linear", "cosine", "constant"] | None,
        typer.Option(show_default="linear", help="Of gradients: how steps become shorter over the epochs."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, show_default="512", help="Of gradients: users of a step.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, show_default="3", help="Of gradients: end after so many epochs without a gain.")
    ] = None,
    hidden_dim: Annotated[int, typer.Option(min=1, help="Hidden units of the item tower, at most.")] = 4096,
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
    version: Annotated[
        str | None, typer.Option("--version", "--run-id", help="A name for the model; by default the time.")
    ] = None,
    webhook: Webhook = None,
    mail: Mail = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Train both towers on the database's decisions, measure them, and register the model as a candidate.

    With --train, it trains on files and needs no database: the output of `dataset export`,
    or tables like it. The model is then written to --out-dir, for `model register`.

    A model that cannot be registered is kept in a new directory, which the message names.

    Each epoch prints its losses as a line of JSON; --json has them in the result.
    Several processes share the gradients: torchrun --nproc-per-node 2 -m two_tower train --epochs 10.
    """
    from two_tower.lifecycle import registry
    from two_tower.notify import channels
    from two_tower.server.connection import connect
    from two_tower.trainer import gradient
    from two_tower.trainer.dataset import DatasetOptions, read
    from two_tower.trainer.evaluate import behind
    from two_tower.trainer.options import TrainOptions
    from two_tower.trainer.train import fit, unmeasured

    if version is not None:
        registry.require_version_name(version)  # fail before hours of training, not after
    options = DatasetOptions(
        mode=mode,
        min_stars=min_stars,
        max_negative_stars=max_negative_stars,
        max_tag_features=max_tag_features,
        max_performer_features=max_performer_features,
        max_video_features=max_video_features,
        min_video_likes=min_video_likes,
    )
    if (items_file is None) != (train_file is None):
        raise typer.BadParameter("goes with --items, and --items with it", param_hint="--train")
    if (out_dir is None) != (train_file is None):
        raise typer.BadParameter("goes with --out-dir, and --out-dir with it", param_hint="--train")
    if val_file is not None and train_file is None:
        raise typer.BadParameter("goes with --train", param_hint="--val")
    if mode != "all" and train_file is not None:
        raise typer.BadParameter("a file says itself what is in it", param_hint="--mode")
    gradients = any(option is not None for option in (loss, lr, lr_decay, batch_size, patience))
    chosen = TrainOptions(
        seed=seed,
        val_ratio=val_ratio,
        use_price_feature=use_price_feature,
        user_attributes=not disable_user_features,
        also=tuple(k or ()),
        split=split,
        epochs=gradient.Recipe.epochs if epochs is None and gradients else epochs,
        loss=loss or gradient.Recipe.loss,
        neg_per_pos=neg_per_pos,
        rate=lr,
        schedule=lr_decay,
        batch=batch_size,
        patience=patience,
        hidden=hidden_dim,
        search_hidden=min(hidden_dim, TrainOptions.search_hidden),
        search=search,
        search_timeout=search_timeout,
        study=str(study),
    )

    def told(epoch: dict[str, Any]) -> None:
        if not json:
            typer.echo(jsonlib.dumps(epoch))

    tell_to = channels(webhook, mail)
    reasons: list[str] | None = None
    with gradient.joined() as processes, told_of_failure(tell_to, "training"):
        if processes.rank:
            gradient.follow(processes)
            return
        if train_file and items_file and out_dir:
            from two_tower.lifecycle.artifacts import write_trained
            from two_tower.trainer.dataset_files import load
            from two_tower.trainer.runs import name_by_time, require_free

            name = version or name_by_time(out_dir, datetime.now(UTC))
            require_free(out_dir, name)
            loaded = load(train_file, val_file, items_file, options, item_key=item_key, say=say)
            with bar() as progress:
                model = fit(loaded.data, chosen, progress, processes, held=loaded.held, told=told)
            where = write_trained(model, loaded.data, name, out_dir, loaded.addresses)
            say(f"{loaded.joined:,} of {loaded.interactions:,} interactions are with items of {items_file}")
            done = f"{name} is in {where}; `two-tower model register {where}` brings it into a database"
        else:
            from two_tower.lifecycle.artifacts import kept
            from two_tower.lifecycle.gate import judge

            with bar() as progress:
                progress("reading", 0.0)
                with connect(dsn, autocommit=True, writes=True) as connection:
                    if version is not None:
                        registry.require_new(connection, version)
                    data = read(connection, options)
                model = fit(data, chosen, progress, processes, told=told, to_register=True)
            with ExitStack() as stack:
                with kept(model, data, version, dsn):
                    # After hours of training, the first connection may be gone.
                    connection = stack.enter_context(connect(dsn, autocommit=True, writes=True))
                    name = registry.register(connection, model, data, version)
                reasons = judge(connection, name)
            done = f"{name} is registered; serve it with `two-tower model activate`"
    said = done + (f"; the gate would refuse it: {'; '.join(reasons)}" if reasons else "")
    own = model.metrics.get("two-tower", {})
    figures = ", ".join(f"{TITLES[n]} {own[n]:.4f}" for n in HEADLINE if own.get(n) is not None)
    for warning in tell_to.tell("two-tower: a model is trained", said + (f"; {figures}" if figures else "") + "."):
        say(f"warning: {warning}")
    if json:
        found = {"metrics": model.metrics, "hyperparameters": model.hyperparameters, "loss": model.loss()}
        print_json({"version": name, **found} | ({} if reasons is None else {"reasons": reasons}))
        return
    held_out = model.hyperparameters.get("held_out", "likes")
    if model.metrics:
        out.print(metrics_table(model.metrics, f"{name}: measured on likes held out, {held_out}"))
    else:
        say(f"{name} has no metrics: {unmeasured().message}")
    if by_history := history_table(model.metrics):
        out.print(by_history)
    for finding in behind(model.metrics):
        say(finding)
    say(done)
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
    k: Ks = None,
    overrides: Overrides = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Measure a version beside references and the active version, and run the gate.

    It uses likes made since both were trained, if 200 users have some; otherwise those
    held out of each training, with the list lengths given by `train --k`. It also
    compares PyTorch, ONNX and stored vectors by cosine. Limits are settings of the
    database; options override them for one run.
    """
    from dataclasses import asdict

    from two_tower.errors import GateFailed, UserError
    from two_tower.lifecycle import gate
    from two_tower.lifecycle.registry import newest
    from two_tower.server.reading import reading
    from two_tower.trainer.evaluate import behind

    def measure(connection: psycopg.Connection[Any]) -> tuple[gate.Measured, list[str]]:
        found = gate.measure(connection, version or newest(connection), k or ())
        measured = found.metrics.get("two-tower", {})
        if lacking := [n for n in k or () if measured and f"recall@{n}" not in measured]:
            raise UserError(
                f"{found.version} was measured when it was trained, and not for lists of {lacking[0]}",
                f"train with --k {lacking[0]}, or come back when {gate.FRESH_USERS} users have new likes",
            )
        return found, gate.judge(connection, found.version, found.numbers(), overrides)

    found, reasons = reading(dsn, measure, say, autocommit=True)
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
