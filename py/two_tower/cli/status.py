"""``two-tower status`` and ``two-tower metrics``: the same figures for people, scripts and monitors.

two-tower status --watch 2
two-tower metrics                     once, on standard output: for node_exporter's textfile collector
two-tower metrics --port 9187         http://127.0.0.1:9187/metrics, which reads the database at every request
"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from two_tower.cli.console import Dsn, Json, manual, out, print_json, say
from two_tower.errors import UserError
from two_tower.signals import until_signalled

if TYPE_CHECKING:
    from two_tower.server.status import Report

app = typer.Typer()

SampleOption = Annotated[
    int | None,
    typer.Option(
        "--sample",
        metavar="N",
        min=1,
        max=1000,
        show_default=False,
        help="Also measure on N users of each live version: recall of the lists against exact search, and stored "
        "vectors against computed ones. Each user costs a scan of all video vectors.",
    ),
]


@app.command(
    epilog=manual(
        "two-tower status",
        "two-tower status --watch 2",
        "two-tower status --json --sample 20",
        exits="0 healthy, 1 a promise is broken or the database cannot be read, 2 wrong usage",
    )
)
def status(
    seconds: Annotated[
        float | None,
        typer.Argument(
            metavar="[SECONDS]", min=0.1, show_default=False, help="Between looks of --watch; 5 if not said."
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until interrupted.")] = False,
    sample: SampleOption = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Say how fresh, complete and healthy the recommender is, and how to mend any problem.

    Problems are a change that waits longer than the setting status_max_lag_seconds, a
    job that fails or that pg_cron does not run, users or videos set aside, vectors
    that are missing or mixed, a missing index or trigger, and no active model.
    """
    from two_tower.server.status import render

    if seconds is not None and not watch:
        raise typer.BadParameter("goes with --watch", param_hint="SECONDS")
    if not watch:
        report = _look(dsn, sample)
        if json:
            print_json(report.as_json())
        else:
            out.print(render(report), highlight=False)
        raise typer.Exit(1 if report.problems else 0)
    raise typer.Exit(_watch(dsn, sample, json, seconds or 5.0))


def _look(dsn: str | None, sample: int | None) -> Report:
    from two_tower.server.connection import connect
    from two_tower.server.reading import replica_says
    from two_tower.server.status import look

    with connect(dsn) as connection:
        report = look(connection, sample)
    return report if dsn else replace(report, replica=replica_says())


def _watch(dsn: str | None, sample: int | None, json: bool, seconds: float) -> int:
    """Repeats the check until interrupted; the exit code of the last check. A lost database may come back."""
    import psycopg
    from rich.text import Text

    from two_tower.server.status import render

    healthy = False
    with until_signalled() as stop, _screen(json) as show:
        while not stop.is_set():
            try:
                report = _look(dsn, sample)
                healthy = not report.problems
                show(jsonlib.dumps(report.as_json(), default=str) if json else render(report))
            except (psycopg.OperationalError, UserError) as error:
                healthy = False
                said = str(error).strip()
                show(jsonlib.dumps({"healthy": False, "error": said}) if json else Text(said, "bold red"))
            stop.wait(seconds)
    return 0 if healthy else 1


@contextmanager
def _screen(json: bool) -> Iterator[Any]:
    """Shows successive checks: in place on a terminal, one below the other in a pipe."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    if json:
        yield typer.echo
    elif out.is_terminal:
        with Live(console=out, auto_refresh=False) as live:
            yield lambda view: live.update(Group(Text(f"{datetime.now():%H:%M:%S}", "dim"), view), refresh=True)
    else:
        yield lambda view: out.print(f"{datetime.now():%Y-%m-%d %H:%M:%S}", view, "", sep="\n", highlight=False)


@app.command(
    epilog=manual(
        "two-tower metrics > /var/lib/prometheus/node-exporter/two_tower.prom",
        "two-tower metrics --port 9187",
        exits="0 printed, also when two_tower_up is 0; 2 wrong usage",
    )
)
def metrics(
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, show_default=False, help="Serve /metrics on this port; 0 is any free one."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address that --port listens on.")] = "127.0.0.1",
    sample: SampleOption = None,
    dsn: Dsn = None,
) -> None:
    """Print what status shows as Prometheus text, or serve it by HTTP with --port.

    A database that cannot be read gives `two_tower_up 0`, and the reason on standard error.
    """
    from two_tower.server.prometheus import StatusCollector, serve, text

    collector = StatusCollector(dsn, sample, say)
    if port is None:
        typer.echo(text(collector), nl=False)
    else:
        serve(collector, host, port, say)
