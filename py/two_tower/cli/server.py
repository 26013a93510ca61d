"""``two-tower up``, ``down``, ``psql``, ``doctor`` and ``migrate``: the server and its schema."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from two_tower.cli.console import Dsn, Json, manual, out, print_json, say
from two_tower.errors import UserError

app = typer.Typer()


@app.command(epilog=manual("two-tower up", "two-tower up --port 54320", "export DATABASE_URL=$(two-tower up)"))
def up(
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Also listen on this port of 127.0.0.1, with a password. Else: a socket only."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Start the embedded PostgreSQL of this directory, creating it first, and print its DSN.

    Data, log and socket are in ./.two-tower. Started by root, the server runs as
    user postgres. If it runs already, only the DSN is printed.
    """
    from two_tower.server.embedded import Server

    server = Server(Path.cwd())
    dsn = server.start(port, say)
    dsn = server.tcp_dsn or dsn
    if json:
        print_json({"dsn": dsn, "version": server.installation.version, "directory": server.home, "log": server.log})
    else:
        typer.echo(dsn)


@app.command(epilog=manual("two-tower down"))
def down() -> None:
    """Stop the embedded PostgreSQL of this directory. Its data stay; connections are cut."""
    from two_tower.server.embedded import Server

    stopped = Server(Path.cwd()).stop()
    say("stopped" if stopped else "not running")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog=manual("two-tower psql", "two-tower psql -- -c 'select * from two_tower.status'", exits="those of psql"),
)
def psql(ctx: typer.Context, dsn: Dsn = None) -> None:
    """Open psql on the database. What follows -- goes to psql."""
    from two_tower.server.connection import resolve_dsn
    from two_tower.server.installation import installations

    target = resolve_dsn(dsn)
    found = [str(item.bindir / "psql") for item in installations()] + [shutil.which("psql") or ""]
    program = next((path for path in found if os.access(path, os.X_OK)), None)
    if program is None:
        raise UserError("psql is not installed", "install package postgresql-client")
    sys.stdout.flush()
    os.execv(program, [program, "--dbname", target, *ctx.args])  # noqa: S606 - psql replaces this process


@app.command(
    epilog=manual(
        "two-tower doctor",
        "two-tower doctor --dsn postgresql://postgres@db.example/app",
        exits="0 all that is needed is there (warnings aside), 1 something is missing, 2 wrong usage",
    )
)
def doctor(dsn: Dsn = None, json: Json = False) -> None:
    """Check a PostgreSQL for what the recommender needs, and say how to mend what it lacks.

    It checks version, extensions, onnxruntime in the server's Python, memory for index
    builds, pg_cron, migrations and the active model. It changes nothing: tests are
    rolled back.
    """
    from dataclasses import asdict

    from two_tower.server.connection import connect, resolve_dsn
    from two_tower.server.doctor import check

    target = resolve_dsn(dsn)
    with connect(target, autocommit=True, migrated=False, as_owner=False) as connection:
        checks = check(connection, target)
    if json:
        print_json([asdict(item) for item in checks])
    else:
        colours = {"ok": "green", "info": "cyan", "warn": "yellow", "fail": "bold red"}
        width = max(len(item.name) for item in checks)
        for item in checks:
            out.print(
                f"[{colours[item.level]}]{item.level:<4}[/] {item.name:<{width}}  {escape(item.detail)}",
                highlight=False,
            )
            if item.remedy:
                out.print(f"     {'':<{width}}  → {escape(item.remedy)}", highlight=False)
    if not all(item.ok for item in checks):
        raise typer.Exit(1)


# --------------------------------------------------------------------------------------------------------- the schema


@app.command(
    epilog=manual(
        "two-tower migrate --check",
        "two-tower migrate",
        "two-tower migrate --take-names",
        "two-tower migrate --to 0006.embeddings",
        "two-tower migrate --to 0",
        "two-tower migrate --sql > recommender.sql",
        exits="0 done, or nothing is in the way, 1 something is, 2 wrong usage",
    )
)
def migrate(
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="ID",
            help="Go forward or back to this migration (a file of migrations/ without .sql); 0 takes all away.",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Say what is in the way and what would change; change nothing.")
    ] = False,
    take_names: Annotated[
        bool,
        typer.Option(
            "--take-names",
            help="Where the application has a relation or routine of a name of ours, rename it until the way back.",
        ),
    ] = False,
    sql: Annotated[
        bool,
        typer.Option(
            "--sql", help="Connect to nothing, and print what an ordinary role would apply to a new database, as SQL."
        ),
    ] = False,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Apply pending migrations, then all of sql/, in one transaction. A second run changes nothing.

    All problems are checked before the first write, and reported in one list. Existing
    tables are adopted: their rows, policies and grants stay as they are. --to 0 restores
    what was found.

    --sql is for a console, or another migration tool: one file, one transaction.
    Afterwards migrate finds everything applied.
    """
    if sql:
        if to is not None or check or take_names or json:
            raise UserError(
                "--sql prints what is applied to a database where none of ours is, and takes no other option",
                "leave the others out, or migrate without --sql",
            )
        from two_tower.server.script import script

        typer.echo(script(), nl=False)
        return
    from two_tower.server.migrate import check as look
    from two_tower.server.migrate import migrate as run

    if check:
        report = look(dsn, take_names=take_names, say=say)
        if json:
            print_json(
                {
                    "problems": [{"what": p.what, "remedy": p.remedy} for p in report.problems],
                    "changes": report.changes,
                    "notes": report.notes,
                }
            )
        else:
            for problem in report.problems:
                out.print(f"[bold red]in the way:[/] {escape(str(problem))}", highlight=False)
            for line in [*report.changes, *report.notes]:
                out.print(line, markup=False, highlight=False)
        if report.problems:
            raise typer.Exit(1)
        return
    result = run(dsn, to, take_names=take_names, say=say)
    if json:
        print_json(result)
        return
    for done, names in (("applied", result["applied"]), ("rolled back", result["rolled_back"])):
        for name in names:
            say(f"{done} {name}")
    say("the database is up to date" if to is None else f"the database is at {to}")
