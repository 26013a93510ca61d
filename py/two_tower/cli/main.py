"""The command line, ``two-tower``. Results go to standard output; progress and logs to standard error.

Exit codes: 0 done, 1 the work failed, 2 wrong usage, 3 a quality gate said no. Verbs import what they need when they
run, so that ``two-tower --help`` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from two_tower.cli import (
    ab,
    bench,
    dataset,
    demo,
    forget,
    imports,
    ingest,
    model,
    pull,
    recommend,
    refresh,
    replay,
    retrain,
    server,
    shards,
    status,
    training,
    ui,
    user_data,
    verify,
)
from two_tower.cli.console import Dsn, Json, Verb, Verbs
from two_tower.cli.options import EnvFiles

PATH = """
The path, in the order of a first day:
  two-tower up                                  a private PostgreSQL in ./.two-tower
  two-tower migrate                             tables, routines, policies
  two-tower doctor                              what the server lacks, and how to mend it
  two-tower import catalog catalog.csv
  two-tower import decisions decisions.csv --create-users
  two-tower train                               a candidate, measured beside references
  two-tower model activate                      embeds everybody, asks the gate, serves
  two-tower recommend --all --output recs.csv   or recommend_videos() in SQL and PostgREST
  two-tower psql -- -c "select two_tower.schedule_jobs()"
                                                refreshes every minute, by pg_cron;
                                                without it: two-tower refresh --every 10
  two-tower status                              exit code 1 when a promise is broken

On any later day: refresh, status, metrics, ui to look; retrain weekly; model rollback to go back at once.

The database is --dsn, else DATABASE_URL (also from a file .env here), else the embedded server of this directory.
DATABASE_READ_URL names a standby of DATABASE_URL, which then answers what only reads.
Several environments: two-tower --env-file production.env VERB.
Results go to standard output, progress and messages to standard error; --json makes a result data.

Exit codes: 0 done, 1 the work failed or a promise is broken, 2 wrong usage, 3 a quality gate said no.
After each verb, --help says the rest. Documents: README.md, docs/.
"""

app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A Two-Tower recommender that lives inside PostgreSQL.",
    epilog=PATH.strip(),
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"pg-two-tower {version('pg-two-tower')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and end.")
]


@app.callback()
def root(env_file: EnvFiles = None, dsn: Dsn = None, json: Json = False, version: Version = False) -> None:
    """A Two-Tower recommender that lives inside PostgreSQL."""


for family in (
    server,
    imports,
    pull,
    ingest,
    training,
    retrain,
    dataset,
    model,
    ab,
    replay,
    refresh,
    recommend,
    status,
    ui,
    verify,
    shards,
    forget,
    user_data,
    demo,
    bench,
):
    app.add_typer(family.app)


def _are_verbs(commands: typer.Typer) -> None:
    for command in commands.registered_commands:
        command.cls = Verb
    for group in commands.registered_groups:
        if group.typer_instance is not None:
            _are_verbs(group.typer_instance)


_are_verbs(app)
