"""The command line, ``two-tower``. Results go to standard output; progress and logs to standard error.

Exit codes: 0 done, 1 the work failed, 2 wrong usage, 3 a quality gate said no. Verbs import what they need when they
run, so that ``two-tower --help`` answers at once.
"""

from __future__ import annotations

import json as jsonlib
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from two_tower.errors import UserError

out = Console(soft_wrap=True)
log = Console(stderr=True, soft_wrap=True)


class Verbs(TyperGroup):
    """Prints an error that the user can mend as one message, without a traceback, and exits with its code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            _complain(error.message, error.hint)
            raise typer.Exit(error.exit_code) from error
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader, such as head, has enough
            raise typer.Exit(0) from None
        except ModuleNotFoundError as error:
            if error.name not in {"onnx", "onnxruntime", "safetensors", "scipy", "torch"}:
                raise
            _complain(f"this takes {error.name}, which is not installed", "pip install 'pg-two-tower[train]'")
            raise typer.Exit(1) from error
        except Exception as error:
            psycopg = sys.modules.get("psycopg")
            if psycopg is None or not isinstance(error, psycopg.Error):
                raise
            # What the database says is meant for people; its context lines are for those who mend it.
            _complain(str(error).strip(), None)
            raise typer.Exit(1) from error


def _complain(message: str, hint: str | None) -> None:
    log.print(f"[bold red]error:[/] {escape(message)}", highlight=False)
    if hint:
        log.print(f"[bold]hint:[/] {escape(hint)}", highlight=False)


def _also_before_the_verb(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """``two-tower --json status`` says the same as ``two-tower status --json``."""
    return value or ctx.find_root().params.get(param.name or "") or value


Dsn = Annotated[
    str | None,
    typer.Option(
        "--dsn",
        metavar="URL",
        callback=_also_before_the_verb,
        show_default=False,
        help="PostgreSQL to use; else DATABASE_URL (also from .env), else the embedded server.",
    ),
]
Json = Annotated[bool, typer.Option("--json", callback=_also_before_the_verb, help="Print the result as JSON.")]

app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A Two-Tower recommender that lives inside PostgreSQL.",
)


@app.callback()
def root(dsn: Dsn = None, json: Json = False) -> None:
    """A Two-Tower recommender that lives inside PostgreSQL."""


def say(line: str) -> None:
    """A line of progress."""
    log.print(line, markup=False, highlight=False)


def print_json(value: Any) -> None:
    """A result as JSON on standard output. Dates, UUIDs and paths become strings."""
    typer.echo(jsonlib.dumps(value, indent=2, default=str, ensure_ascii=False))


# ------------------------------------------------------------------------------------------------ the embedded server


@app.command()
def up(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Also listen on 127.0.0.1, with a password.")
    ] = None,
    json: Json = False,
) -> None:
    """Start the embedded PostgreSQL of this directory, creating it first, and print its DSN."""
    from two_tower.server import Server

    server = Server(Path.cwd())
    dsn = server.start(port, say)
    dsn = server.tcp_dsn or dsn
    if json:
        print_json({"dsn": dsn, "version": server.installation.version, "directory": server.home, "log": server.log})
    else:
        typer.echo(dsn)


@app.command()
def down() -> None:
    """Stop the embedded PostgreSQL. Its data stay."""
    from two_tower.server import Server

    stopped = Server(Path.cwd()).stop()
    say("stopped" if stopped else "not running")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def psql(ctx: typer.Context, dsn: Dsn = None) -> None:
    """Open psql. What follows `--` goes to psql: two-tower psql -- -c 'select 1'."""
    from two_tower.database import resolve_dsn
    from two_tower.server import installations

    target = resolve_dsn(dsn)
    found = [str(item.bindir / "psql") for item in installations()] + [shutil.which("psql") or ""]
    program = next((path for path in found if os.access(path, os.X_OK)), None)
    if program is None:
        raise UserError("psql is not installed", "install package postgresql-client")
    sys.stdout.flush()
    os.execv(program, [program, "--dbname", target, *ctx.args])  # noqa: S606 - psql takes this process's place


@app.command()
def doctor(dsn: Dsn = None, json: Json = False) -> None:
    """Check a PostgreSQL for what the recommender needs, and say how to mend what it lacks. Changes nothing."""
    from dataclasses import asdict

    from two_tower.database import connect, resolve_dsn
    from two_tower.doctor import check

    target = resolve_dsn(dsn)
    with connect(target, autocommit=True) as connection:
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


from two_tower.import_commands import app as import_app  # noqa: E402 - it takes its options from above

app.add_typer(import_app, name="import")

if __name__ == "__main__":
    app()
