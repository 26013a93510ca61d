"""What all verbs share: the two consoles, error messages, options, results as JSON."""

from __future__ import annotations

import errno
import json as jsonlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from two_tower.errors import UserError
from two_tower.metrics import TITLES, titles
from two_tower.progress import Progress
from two_tower.terminals import is_unicode, settle
from two_tower.writing import writing

if TYPE_CHECKING:
    from two_tower.notify import Channels

out = Console(soft_wrap=True)
log = Console(stderr=True, soft_wrap=True)


MOST = 2**31 - 1
"""The largest number that options take: PostgreSQL's integer."""


class Verb(TyperCommand):
    """Refuses numbers beyond :data:`MOST`, infinity, and what is no number: libraries fail on them with a traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        for parameter in self.params:
            given = ctx.params.get(parameter.name)
            for value in given if isinstance(given, list) else [given]:
                if isinstance(value, int | float) and not -MOST <= value <= MOST:
                    raise typer.BadParameter(
                        f"{value} is not from {-MOST:,} to {MOST:,}", ctx, param_hint=" / ".join(parameter.opts)
                    )
        return rest


class Verbs(TyperGroup):
    """Prints an error that the user can fix as one message, without a traceback, and exits with its code."""

    def invoke(self, ctx: Any) -> Any:
        settle()
        try:
            return super().invoke(ctx)
        except UserError as error:
            _complain(error.message, error.hint)
            raise typer.Exit(error.exit_code) from error
        except BrokenPipeError:
            _give_up_output()  # the reader, such as head, has enough
            raise typer.Exit(0) from None
        except OSError as error:
            if error.errno not in _OF_DISKS:
                raise
            where = error.filename
            try:
                sys.stdout.flush()
            except OSError:
                where = "standard output"
                _give_up_output()
            _complain(f"{where}: {error.strerror}" if where else str(error.strerror), None)
            raise typer.Exit(1) from error
        except ModuleNotFoundError as error:
            if error.name not in {"onnx", "onnxruntime", "optuna", "scipy", "torch"}:
                raise
            _complain(f"this needs {error.name}, which is not installed", "pip install 'pg-two-tower[train]'")
            raise typer.Exit(1) from error
        except Exception as error:
            psycopg = sys.modules.get("psycopg")
            if psycopg is None or not isinstance(error, psycopg.Error):
                raise
            # The database's message is meant for users; its context lines are for developers.
            lacks_right = isinstance(error, psycopg.errors.InsufficientPrivilege)
            hint = "connect as the owner of the database, or as a member of service_role" if lacks_right else None
            _complain(str(error).strip(), hint)
            raise typer.Exit(1) from error


_OF_DISKS = {
    errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOSPC,
    errno.ENOTDIR, errno.EPERM, errno.EROFS,
}  # fmt: skip
"""Errors of reading or writing a file that the user named."""


def _give_up_output() -> None:
    """Prevents an error when Python flushes standard output at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str, hint: str | None) -> None:
    log.print(f"[bold red]error:[/] {escape(message)}", highlight=False)
    if hint:
        log.print(f"[bold]hint:[/] {escape(hint)}", highlight=False)


def _also_before_the_verb(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """``two-tower --json status`` means the same as ``two-tower status --json``."""
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


def manual(*examples: str, exits: str = "0 done, 1 it failed, 2 wrong usage") -> str:
    """The end of a verb's help: examples and exit codes."""
    return "\n".join(["Examples:", *(f"  {example}" for example in examples), "", f"Exit codes: {exits}."])


def say(line: str) -> None:
    """A line of progress."""
    log.print(line, markup=False, highlight=False)


@contextmanager
def bar(what: str = "") -> Iterator[Progress]:
    """A progress bar on a terminal, with text and share set by the caller; nothing in a pipe. It disappears when the
    work ends. Until a share is known, it moves to and fro beside ``what``."""
    from rich import progress

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=log, transient=True, disable=not log.is_terminal) as shown:
        task = shown.add_task(what, total=None)
        yield lambda what, share: shown.update(task, description=what, total=1.0, completed=share)


@contextmanager
def told_of_failure(channels: Channels, what: str) -> Iterator[None]:
    """Notifies the channels of an error that ends ``what``."""
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        reason = error.message if isinstance(error, UserError) else str(error).strip() or type(error).__name__
        for warning in channels.tell(f"two-tower: {what} failed", f"{what.capitalize()} failed: {reason}."):
            say(f"warning: {warning}")
        raise


def print_json(value: Any) -> None:
    """A result as JSON on standard output. Dates, UUIDs and paths become strings."""
    typer.echo(jsonlib.dumps(value, indent=2, default=str, ensure_ascii=not is_unicode()))


def echo_json(document: str) -> None:
    """A JSON document on standard output, unescaped if its encoding has every character."""
    typer.echo(document if is_unicode() else jsonlib.dumps(jsonlib.loads(document)))


def require_place(path: Path | None) -> None:
    """Raises UserError before the work starts if its result could not be written to ``path``, if one is given."""
    if path is None:
        return
    with writing(path):
        new = not path.exists()
        with path.open("a"):
            pass
        if new:
            path.unlink()


def write_text(path: Path, text: str) -> None:
    """Writes a result that the user asked to have in a file."""
    with writing(path):
        path.write_text(text, encoding="utf-8")


RECOMMENDERS = ("two-tower", "random", "popularity", "item-kNN", "ALS", "EASE^R")
"""The model itself, then the references from weak to strong."""


def _in_order(metrics: dict[str, Any]) -> list[str]:
    known = RECOMMENDERS.index
    return sorted(metrics, key=lambda name: known(name) if name in RECOMMENDERS else len(RECOMMENDERS))


def metrics_table(metrics: dict[str, Any], title: str) -> Any:
    """A table for a terminal: a row for each recommender, a column for each metric."""
    from rich.table import Table

    measured = [values for values in metrics.values() if isinstance(values, dict)]
    names = titles({name for values in measured for name, value in values.items() if value is not None})
    table = Table("", *names.values(), title=title, title_justify="left")
    for recommender in _in_order(metrics):
        values = metrics[recommender]
        if isinstance(values, dict) and values.get("recall@20") is not None:
            table.add_row(recommender, *("–" if values.get(n) is None else f"{values[n]:.4f}" for n in names))
    return table


def history_table(metrics: dict[str, Any]) -> Any:
    """A row for each recommender, a column for each group of users by number of known likes; None if there is only one
    group."""
    from rich.table import Table

    measured = {
        name: values["by_likes"]
        for name, values in metrics.items()
        if isinstance(values, dict) and "by_likes" in values
    }
    columns = {name: part["users"] for name, part in next(iter(measured.values()), {}).items()}
    if len(columns) < 2:
        return None
    title = f"{TITLES['ndcg@20']} by known likes"
    table = Table("", *(f"{n}\n{users:,} users" for n, users in columns.items()), title=title, title_justify="left")
    for recommender in _in_order(measured):
        table.add_row(recommender, *(f"{measured[recommender][name]['ndcg@20']:.4f}" for name in columns))
    return table
