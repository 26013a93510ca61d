"""``two-tower import catalog | reviews | decisions``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from two_tower.cli import Dsn, Json, log, say

if TYPE_CHECKING:
    from two_tower.importing import ImportSummary

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Read a catalogue, reviews or decisions from CSV or Parquet.")

Source = Annotated[str, typer.Argument(metavar="FILE", help="CSV, gzip of CSV, or Parquet; - is standard input.")]
RejectsOption = Annotated[
    Path | None,
    typer.Option(show_default=False, help="Report of rejected rows; else FILE.rejects.csv in this directory."),
]
MapOption = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="THEIRS=OURS", show_default=False, help="Read the file's column THEIRS as OURS."),
]
DelimiterOption = Annotated[
    str | None, typer.Option(show_default=False, help="Else comma, semicolon or tab, whichever the header shows.")
]
EncodingOption = Annotated[str | None, typer.Option(show_default=False, help="Else UTF-8, or UTF-16 by its mark.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")]
UnknownOption = Annotated[
    str, typer.Option(metavar="reject|create", help="What to do with a product that the catalogue lacks.")
]


@app.command()
def catalog(
    file: Source,
    dsn: Dsn = None,
    json: Json = False,
    rejects: RejectsOption = None,
    columns: MapOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Insert and update videos: product_url, title, and tags, performers (separated by |), maker, price, …"""
    from two_tower.importing import import_catalog

    _run(import_catalog, file, dsn, json, rejects, columns, delimiter, encoding, "reject", dry_run)


@app.command()
def reviews(
    file: Source,
    dsn: Dsn = None,
    json: Json = False,
    rejects: RejectsOption = None,
    columns: MapOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    unknown: UnknownOption = "reject",
    dry_run: DryRunOption = False,
) -> None:
    """Insert and update reviews: product_url, reviewer_id, stars, and maybe created_at."""
    from two_tower.importing import import_reviews

    _run(import_reviews, file, dsn, json, rejects, columns, delimiter, encoding, unknown, dry_run)


@app.command()
def decisions(
    file: Source,
    dsn: Dsn = None,
    json: Json = False,
    rejects: RejectsOption = None,
    columns: MapOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    unknown: UnknownOption = "reject",
    create_users: Annotated[bool, typer.Option("--create-users", help="Create the users it meets.")] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Insert and update decisions: user_id, product_url or video_id, decision or label, and maybe created_at."""
    from two_tower.importing import import_decisions

    _run(
        import_decisions,
        file,
        dsn,
        json,
        rejects,
        columns,
        delimiter,
        encoding,
        unknown,
        dry_run,
        create_users=create_users,
    )


def _run(
    work: Callable[..., ImportSummary],
    file: str,
    dsn: str | None,
    json: bool,
    rejects: Path | None,
    columns: list[str] | None,
    delimiter: str | None,
    encoding: str | None,
    unknown: str,
    dry_run: bool,
    **arguments: Any,
) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from two_tower.database import connect
    from two_tower.importing import ImportOptions

    if unknown not in ("reject", "create"):
        raise typer.BadParameter(f"{unknown!r} is neither reject nor create", param_hint="--unknown")
    delimiter = {"\\t": "\t", "tab": "\t"}.get(delimiter or "", delimiter)
    if delimiter is not None and len(delimiter) != 1:
        raise typer.BadParameter("a delimiter is one character", param_hint="--delimiter")
    mapping = dict(pair.split("=", 1) for pair in columns or [] if "=" in pair)
    if len(mapping) != len(columns or []):
        raise typer.BadParameter("give THEIRS=OURS, each column once", param_hint="--map")
    options = ImportOptions(
        rejects, delimiter, encoding, mapping, "create" if unknown == "create" else "reject", dry_run, say
    )
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(),
        console=log, transient=True, disable=not log.is_terminal,
    )  # fmt: skip
    with connect(dsn) as connection, bar:
        task = bar.add_task("reading", total=None)

        def progress(done: int, total: int | None, step: str) -> None:
            bar.update(task, completed=done, total=total, description=step)

        summary = work(connection, file if file == "-" else Path(file), options, progress, **arguments)
    if json:
        typer.echo(summary.to_json())
        return
    typer.echo(describe(summary))


def describe(summary: ImportSummary) -> str:
    """The summary in words."""
    verb = "would be" if summary.dry_run else "were"
    lines = [
        f"{summary.source}: {summary.rows:,} rows in {summary.seconds:.1f} s",
        f"  {summary.inserted:,} {verb} inserted, {summary.updated:,} updated, {summary.unchanged:,} unchanged",
    ]
    if summary.duplicates:
        lines.append(f"  {summary.duplicates:,} replaced by a later row of the file")
    if summary.users_created or (summary.items_created and summary.items_created != summary.inserted):
        lines.append(f"  {summary.users_created:,} users and {summary.items_created:,} videos {verb} created")
    if summary.rejected:
        lines.append(f"  {summary.rejected:,} rejected: see {summary.rejects}")
    return "\n".join(lines)
