"""``two-tower ab``: two versions side by side, each for its share of the users.

two-tower ab start monday friday --share 0.1
two-tower ab status
two-tower ab stop --winner friday
"""

from __future__ import annotations

from typing import Annotated

import typer

from two_tower.cli.console import Dsn, Json, Verbs, bar, manual, out, print_json, say
from two_tower.cli.options import EmbeddingWorkers, Overrides, gate_limits

app = typer.Typer(
    name="ab",
    cls=Verbs,
    no_args_is_help=True,
    help="Compare two versions on users: start, look daily, stop.",
)


@app.command(
    epilog=manual(
        "two-tower ab start monday friday",
        "two-tower ab start monday friday --share 0.5",
        "two-tower ab start monday friday --publish s3://bucket/prefix",
        exits="0 started, 1 it failed, 2 wrong usage, 3 the challenger's gate said no",
    )
)
@gate_limits
def start(
    control: Annotated[str, typer.Argument(help="The version that serves, and goes on to serve everybody else.")],
    challenger: Annotated[str, typer.Argument(help="The version that serves the share.")],
    share: Annotated[float, typer.Option(help="Share of the users whom the challenger serves, between 0 and 1.")] = 0.1,
    workers: EmbeddingWorkers = 1,
    force: Annotated[
        bool, typer.Option("--force", help="Go ahead although the gate says no; that is recorded.")
    ] = False,
    publish: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Upload both first, to file:///path or s3://bucket/prefix, for clients that compute vectors.",
        ),
    ] = None,
    overrides: Overrides = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Serve a share of the users, drawn by hash, by another version.

    Missing vectors are computed first, and the version has to pass its gate. From then on
    each user sees one version everywhere, until `ab stop`. Lists count once they are
    logged by next_videos() or log_shown().
    """
    from two_tower.lifecycle import experiments
    from two_tower.server.connection import connect

    if not 0 < share < 1:
        raise typer.BadParameter(f"{share:g} is not between 0 and 1", param_hint="--share")
    with connect(dsn, autocommit=True, writes=True) as connection, bar() as progress:
        started = experiments.start(
            connection,
            control,
            challenger,
            share,
            progress,
            force=force,
            workers=workers,
            overrides=overrides,
            publish=publish,
        )
    if json:
        print_json(started)
    else:
        say(f"experiment {started['experiment']}: {challenger} serves {share:.1%} of the users, {control} the others")


@app.command(
    epilog=manual("two-tower ab status", "two-tower ab status 3 --json", exits="0 shown, 1 it failed, 2 wrong usage")
)
def status(
    number: Annotated[
        int | None, typer.Argument(metavar="[NUMBER]", show_default=False, help="An experiment; else the latest.")
    ] = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Show the results of the running experiment, or of an earlier one.

    Intervals and p-values of the rates are valid however often you look, so you may stop
    an experiment as soon as they are clear.
    """
    from two_tower.server.experiments import render, report
    from two_tower.server.reading import reading

    found = reading(dsn, lambda connection: report(connection, number), say)
    if json:
        print_json(found)
    elif found is None:
        say("no experiment was started yet; start one: two-tower ab start ACTIVE OTHER")
    else:
        out.print(render(found), highlight=False)


@app.command(epilog=manual("two-tower ab stop", "two-tower ab stop --winner friday"))
def stop(
    winner: Annotated[
        str | None,
        typer.Option(
            show_default=False, help="Which of both serves everybody from now on; else the one that is active."
        ),
    ] = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """End the experiment at once; the other version is then on standby."""
    from two_tower.lifecycle import experiments
    from two_tower.server.connection import connect

    with connect(dsn, autocommit=True, writes=True) as connection:
        stopped = experiments.stop(connection, winner)
    if json:
        print_json(stopped)
    else:
        say(f"experiment {stopped['experiment']} is over; {stopped['model_version']} serves everybody")
