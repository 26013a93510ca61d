"""``two-tower shards``: work on all of several servers that share a catalogue and have users of their own.

two-tower shards train --version friday
two-tower shards activate friday
two-tower shards popularity
two-tower shards status
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from two_tower.cli.console import Json, Verbs, bar, manual, metrics_table, out, print_json, say
from two_tower.cli.options import (
    EmbeddingWorkers,
    MaxNegativeStars,
    MinStars,
    Mode,
    Overrides,
    Repair,
    Sample,
    Seed,
    UsePriceFeature,
    gate_limits,
)

if TYPE_CHECKING:
    from two_tower.shards import Shard

app = typer.Typer(
    name="shards",
    cls=Verbs,
    no_args_is_help=True,
    help="Activate, train, count and look over several servers, each with its own users: TWO_TOWER_SHARDS.",
    epilog="The first of TWO_TOWER_SHARDS publishes catalogue and models; docs/scaling.md sets it up.",
)

Without = Annotated[
    list[str] | None,
    typer.Option(
        "--without",
        metavar="NAME",
        show_default=False,
        help="Leave this shard out, because it is down or for another reason; may be repeated.",
    ),
]


def _configured(without: list[str] | None = None) -> tuple[list[Shard], list[Shard]]:
    """All shards, and those that take part."""
    from two_tower.settings import Settings
    from two_tower.shards import parse

    setting = Settings().shards
    shards = parse(None if setting is None else setting.get_secret_value())
    names = [shard.name for shard in shards]
    for name in without or ():
        if name not in names:
            raise typer.BadParameter(f"{name} is none of {', '.join(names)}", param_hint="--without")
    taking_part = [shard for shard in shards if shard.name not in (without or ())]
    if not taking_part:
        raise typer.BadParameter("leaves out every shard", param_hint="--without")
    return shards, taking_part


@app.command(
    epilog=manual(
        "two-tower shards activate",
        "two-tower shards activate friday --without west",
        exits="0 all that take part serve it, 1 it failed, 2 wrong usage, 3 a gate said no; "
        "after 1 and 3 each serves what it served, or the message says what",
    )
)
@gate_limits
def activate(
    version: Annotated[
        str | None, typer.Argument(help="A version; by default the newest candidate of the first shard.")
    ] = None,
    without: Without = None,
    workers: EmbeddingWorkers = 1,
    force: Annotated[bool, typer.Option("--force", help="Go ahead although a gate says no; that is recorded.")] = False,
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Make one version active on every shard, or leave all as they are.

    All shards compute missing vectors and run their gate before the first one is
    switched. Then they are switched one after the other; if one fails, those before it go
    back. A standby version is switched to at once, so this is also the rollback.
    """
    from two_tower.lifecycle import shards

    everyone, _ = _configured(without)
    with bar() as progress:
        done = shards.activate(
            everyone, version, progress, without=without or (), force=force, workers=workers, overrides=overrides
        )
    for warning in [*done.left_out.values(), *done.warnings]:
        say(f"warning: {warning}")
    if json:
        print_json(asdict(done))
    else:
        say(f"{', '.join(done.previous)} serve {done.version}")


@app.command(
    epilog=manual("two-tower shards train", "two-tower shards train --version friday --without west"),
)
def train(
    mode: Mode = "all",
    min_stars: MinStars = 4.0,
    max_negative_stars: MaxNegativeStars = 2.0,
    use_price_feature: UsePriceFeature = False,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default="0",
            help="Go on by gradients, at most so long, and keep the epoch that validation finds best, if any.",
        ),
    ] = None,
    seed: Seed = 0,
    version: Annotated[str | None, typer.Option(help="A name for the model; by default the time.")] = None,
    without: Without = None,
    json: Json = False,
) -> None:
    """Train on what the users of all shards decided, and register the model on the first.

    The shards are read in parallel, by COPY, into one training set; the catalogue is
    the first one's, from which the model is replicated to the others. Several processes share
    the gradients: torchrun --nproc-per-node 2 -m two_tower shards train --epochs 10.
    """
    from two_tower.lifecycle import registry
    from two_tower.lifecycle.artifacts import kept
    from two_tower.lifecycle.gate import judge
    from two_tower.lifecycle.shards import read_training_set
    from two_tower.shards import answering, connect, connected, on_each
    from two_tower.trainer import gradient
    from two_tower.trainer.dataset import DatasetOptions
    from two_tower.trainer.options import TrainOptions
    from two_tower.trainer.train import fit

    if version is not None:
        registry.require_version_name(version)  # fail before hours of training, not after
    everyone, taking_part = _configured(without)
    if taking_part[0] != everyone[0]:
        # A model registered elsewhere would never reach the other shards.
        raise typer.BadParameter(f"{everyone[0].name} publishes the models, so it takes part", param_hint="--without")
    options = DatasetOptions(mode=mode, min_stars=min_stars, max_negative_stars=max_negative_stars)
    chosen = TrainOptions(seed=seed, use_price_feature=use_price_feature, epochs=epochs)
    with gradient.joined() as processes:
        if processes.rank:
            gradient.follow(processes)
            return
        with bar() as progress:
            progress("reading", 0.0)
            with connected(taking_part, writes=True) as connections:
                if version is not None:
                    # A row that a shard has already would stop its subscription.
                    on_each(connections, lambda _, connection: registry.require_new(connection, version))
                data = read_training_set(connections, options)
            model = fit(data, chosen, progress, processes, to_register=True)
        with ExitStack() as stack:
            with kept(model, data, version, taking_part[0].dsn):
                # After hours of training, the first connections may be gone.
                first = stack.enter_context(connect(taking_part[0], writes=True))
                with answering(first):
                    name = registry.register(first, model, data, version)
            reasons = judge(first, name)
    if json:
        found = {"metrics": model.metrics, "hyperparameters": model.hyperparameters, "loss": model.loss()}
        print_json({"version": name, "users": data.n_users, **found, "reasons": reasons})
        return
    out.print(metrics_table(model.metrics, f"{name}: measured on likes held out"))
    say(f"{name} is registered on {taking_part[0].name}; serve it with `two-tower shards activate`")
    if reasons:
        say(f"  as things are, the gate refuses it: {'; '.join(reasons)}")


@app.command(
    epilog=manual(
        "two-tower shards popularity",
        "37 * * * *  two-tower shards popularity      (a line of a crontab)",
        exits="0 each counts the likes of all, 1 it failed and no shard is the worse, 2 wrong usage",
    )
)
def popularity(without: Without = None, json: Json = False) -> None:
    """Have each shard also count the likes of the others' users: in popularity, trends, least_likers.

    Each stores the others' counts by shard, and its own job adds them each time. The counts
    of a shard that is left out stay as they were.
    """
    from two_tower.lifecycle.shards import sum_popularity
    from two_tower.shards import connected

    everyone, taking_part = _configured(without)
    with connected(taking_part, writes=True) as connections:
        counted = sum_popularity(connections, [shard.name for shard in everyone])
    if json:
        print_json(counted)
    else:
        say(", ".join(f"{name}: {count:,} videos" for name, count in counted.items()))


@app.command(
    epilog=manual(
        "two-tower shards verify",
        "two-tower shards verify --sample 1000 --without west",
        exits="0 nothing differs, or it is in the change logs now, 1 something differs or one failed, 2 wrong usage",
    )
)
def verify(
    sample: Sample = None,
    repair: Repair = False,
    without: Without = None,
    json: Json = False,
) -> None:
    """Compare stored features, vectors and tastes with what the rows give, on all shards in parallel."""
    from two_tower.lifecycle import verify as verification
    from two_tower.shards import LEAVE_OUT, ask_each, connect, failed

    _, taking_part = _configured(without)
    with bar() as progress, ExitStack() as stack:

        def compare(name: str, connection: Any) -> dict[str, Any]:
            found = verification.verify(connection, lambda what, share: progress(f"{name}: {what}", share), sample)
            marked = verification.repair(connection, found) if repair else 0
            answer = {"users": found.users, "videos": found.videos, "differing": found.differing, "marked": marked}
            if sample is None:
                verification.log(connection, answer)
            return answer

        # Each shard by itself: what is found on one says nothing of another.
        opened, unreachable = ask_each(
            {shard.name: shard for shard in taking_part},
            lambda _, shard: stack.enter_context(connect(shard, writes=repair or sample is None)),
        )
        answers, failures = ask_each(opened, compare)
        failures |= unreachable
    if json:
        print_json(answers)
    else:
        for name, answer in answers.items():
            say(f"{name}: {answer['users']:,} users and {answer['videos']:,} videos compared")
            for kind, count in answer["differing"].items():
                if count:
                    say(f"{name}: {count:,} {kind.replace('_', ' ')} differ from what the rows say")
    if failures:
        raise failed(failures, LEAVE_OUT)
    differs = any(any(answer["differing"].values()) for answer in answers.values())
    raise typer.Exit(1 if differs and not repair else 0)


@app.command(
    epilog=manual(
        "two-tower shards status",
        "two-tower shards status --json",
        exits="0 all are healthy and serve one version, 1 a promise is broken or a shard is down, 2 wrong usage",
    )
)
def status(json: Json = False) -> None:
    """Say which version each shard serves, how fresh it is, and what is broken where.

    Problems are those of `two-tower status` on any shard, a shard that is down, two
    versions that serve at once, and a table of the first that is not replicated to another.
    """
    from two_tower.server.shards import look

    everyone, _ = _configured()
    found = look(everyone)
    if json:
        print_json({"healthy": not any(row["problems"] for row in found), "shards": found})
    else:
        table = Table("shard", "serves", "lag", "pending", "users", "behind the first")
        for row in found:
            behind = row["bytes_behind"]
            table.add_row(
                row["shard"],
                row["serves"] or "–",
                "–" if row["lag_seconds"] is None else f"{row['lag_seconds']:,.0f} s",
                "–" if row["pending"] is None else f"{row['pending']:,}",
                "–" if row["users"] is None else f"{row['users']:,}",
                "–" if behind is None else f"{behind:,} bytes",
            )
        out.print(table)
        for row in found:
            for problem in row["problems"]:
                said = f"{row['shard']}: {problem['what']}: {problem['detail']} → {problem['remedy']}"
                out.print(escape(said), highlight=False)
    raise typer.Exit(1 if any(row["problems"] for row in found) else 0)
