"""``two-tower import catalog | reviews | decisions | vectors``."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from two_tower.cli.console import Dsn, Json, echo_json, log, manual, require_place, say, write_text
from two_tower.cli.options import SummaryOption
from two_tower.writing import require_other

if TYPE_CHECKING:
    from two_tower.data.imports import ImportOptions, ImportSummary

app: typer.Typer = typer.Typer(
    name="import", no_args_is_help=True, help="Read a catalogue, reviews, decisions or vectors from CSV or Parquet."
)

Source = Annotated[str, typer.Argument(metavar="FILE", help="CSV, gzip of CSV, or Parquet; - is standard input.")]
RejectsOption = Annotated[
    Path | None,
    typer.Option(show_default=False, help="Report of rejected rows; else NAME.rejects.csv in this directory."),
]
MapOption = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="THEIRS=OURS", show_default=False, help="Read the file's column THEIRS as OURS."),
]
DelimiterOption = Annotated[
    str | None,
    typer.Option(
        show_default=False, help="Else comma, semicolon, tab, vertical bar, :: or space, as the header or sep= shows."
    ),
]
HeaderOption = Annotated[
    str | None,
    typer.Option(metavar="NAME,NAME,...", show_default=False, help="The columns of a file without a line of names."),
]
BackslashesOption = Annotated[
    bool | None,
    typer.Option(
        "--backslashes/--no-backslashes",
        show_default=False,
        help="Whether backslashes escape what follows, as in dumps of MySQL; else as the first rows show.",
    ),
]
EncodingOption = Annotated[
    str | None,
    typer.Option(show_default=False, help="Else UTF-8, UTF-16 by its mark, or CP932 or EUC-JP that has kana."),
]
MostRejectedOption = Annotated[
    float,
    typer.Option(min=0, max=1, metavar="SHARE", help="Import nothing if more than this share of the rows is rejected."),
]
ScaleOption = Annotated[
    float | None,
    typer.Option(
        min=1, max=1_000, show_default="5, or 10 where the stars of the first rows go to 10", help="The best rating."
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")]
ChunkOption = Annotated[
    int | None,
    typer.Option(min=1, show_default=False, help="Rows per transaction; else the file is one. A second run goes on."),
]
UnknownOption = Annotated[
    str, typer.Option(metavar="reject|create", help="What to do with a product that the catalogue lacks.")
]


EXITS = (
    "0 imported (rejected rows are in the report), 1 it failed; nothing, or with --chunk a part, came in, 2 wrong usage"
)


@app.command(
    epilog=manual(
        "two-tower import catalog catalog.csv",
        "two-tower import catalog items.parquet --map url=product_url --map genres=tags --dry-run",
        "zcat catalog.csv.gz | two-tower import catalog -",
        exits=EXITS,
    )
)
def catalog(
    file: Source,
    dsn: Dsn = None,
    json: Json = False,
    rejects: RejectsOption = None,
    columns: MapOption = None,
    delimiter: DelimiterOption = None,
    header: HeaderOption = None,
    encoding: EncodingOption = None,
    backslashes: BackslashesOption = None,
    dry_run: DryRunOption = False,
    chunk: ChunkOption = None,
    most_rejected: MostRejectedOption = 0.5,
    summary: SummaryOption = None,
) -> None:
    """Insert and update videos.

    Columns: product_url, title; if known tags, performers, image_urls (lists separated
    by |), maker, label, series, source, price, duration_seconds, released_at,
    thumbnail_url, description. A file is imported whole or not at all, unless --chunk is given;
    importing it again changes nothing. Videos that it does not name stay.
    """
    from two_tower.data.imports import import_catalog

    options = _options(
        rejects, columns, delimiter, header, encoding, backslashes, "reject", dry_run, chunk, most_rejected
    )
    _run(import_catalog, file, dsn, json, options, summary)


@app.command(
    epilog=manual(
        "two-tower import reviews reviews.csv.gz",
        "two-tower import reviews reviews.csv --chunk 1000000 --summary summary.json",
        "two-tower import reviews ratings.dat --header reviewer_id,product_url,stars,created_at",
        exits=EXITS,
    )
)
def reviews(
    file: Source,
    dsn: Dsn = None,
    json: Json = False,
    rejects: RejectsOption = None,
    columns: MapOption = None,
    delimiter: DelimiterOption = None,
    header: HeaderOption = None,
    encoding: EncodingOption = None,
    backslashes: BackslashesOption = None,
    scale: ScaleOption = None,
    unknown: UnknownOption = "reject",
    dry_run: DryRunOption = False,
    chunk: ChunkOption = None,
    most_rejected: MostRejectedOption = 0.5,
    summary: SummaryOption = None,
) -> None:
    """Insert and update star reviews, to train on; reviewers need not be users.

    Columns: product_url, reviewer_id, stars (0 to 5; --scale 10 halves those of a
    ten-point scale), and created_at or timestamp if known.
    """
    from two_tower.data.imports import import_reviews

    options = _options(
        rejects, columns, delimiter, header, encoding, backslashes, unknown, dry_run, chunk, most_rejected, scale
    )
    _run(import_reviews, file, dsn, json, options, summary)


@app.command(
    epilog=manual(
        "two-tower import decisions decisions.csv --create-users",
        "two-tower import decisions likes.csv --map who=user_id --unknown create",
        "two-tower import decisions purchases.csv --weight 3",
        exits=EXITS,
    )
)
def decisions(
    file: Source,
    dsn: Dsn = None,
    json: Json = False,
    rejects: RejectsOption = None,
    columns: MapOption = None,
    delimiter: DelimiterOption = None,
    header: HeaderOption = None,
    encoding: EncodingOption = None,
    backslashes: BackslashesOption = None,
    scale: ScaleOption = None,
    unknown: UnknownOption = "reject",
    create_users: Annotated[bool, typer.Option("--create-users", help="Create the users it meets.")] = False,
    weight: Annotated[
        float | None,
        typer.Option(
            show_default=False,
            help="What a row counts that does not say it, from 0.01 to 10, such as 3 for purchases; else 1.",
        ),
    ] = None,
    dry_run: DryRunOption = False,
    chunk: ChunkOption = None,
    most_rejected: MostRejectedOption = 0.5,
    summary: SummaryOption = None,
) -> None:
    """Insert and update what users decided on videos.

    Columns: user_id or reviewer_id; product_url, video_id or item_id; decision (LIKE,
    DISLIKE, NOPE, SKIP) or label (1, 0); created_at or timestamp if known; and its weight, if
    known: weight (0.01 to 10), or stars (5 stars weigh 1), or watched (a share from 0 to 1).
    A user id that is not a UUID is mapped to one, the same at every import.
    """
    from two_tower.data.imports import import_decisions
    from two_tower.features import LEAST_GIVEN, MOST_GIVEN

    if weight is not None and not LEAST_GIVEN <= weight <= MOST_GIVEN:
        raise typer.BadParameter(f"{weight:g} is not from {LEAST_GIVEN:g} to {MOST_GIVEN:g}", param_hint="--weight")
    options = _options(
        rejects, columns, delimiter, header, encoding, backslashes, unknown, dry_run, chunk, most_rejected, scale
    )
    _run(import_decisions, file, dsn, json, options, summary, create_users=create_users, weight=weight)


@app.command(
    epilog=manual(
        "two-tower import vectors clip.parquet --encoder clip-vit-b32",
        "two-tower import vectors titles.csv --encoder e5-small --map url=product_url --dry-run",
        exits="0 imported (rejected rows are in the report), 1 it failed; nothing came in, 2 wrong usage",
    )
)
def vectors(
    file: Source,
    encoder: Annotated[
        str,
        typer.Option(metavar="NAME", help="What made the vectors; those of two encoders are never compared."),
    ],
    dsn: Dsn = None,
    json: Json = False,
    rejects: RejectsOption = None,
    columns: MapOption = None,
    delimiter: DelimiterOption = None,
    header: HeaderOption = None,
    encoding: EncodingOption = None,
    backslashes: BackslashesOption = None,
    dry_run: DryRunOption = False,
    most_rejected: MostRejectedOption = 0.5,
    summary: SummaryOption = None,
) -> None:
    """Insert and update vectors of videos from an encoder of images or texts.

    Columns: video_id, item_id or product_url; vector or embedding, a list of at most 2,000 numbers, the
    same number in each row. A video with several rows, such as one for each image, gets their
    mean direction. The next training learns from the vectors, and they place new videos.
    """
    from two_tower.data.imports import import_vectors

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}", encoder):
        raise typer.BadParameter(
            f"{encoder!r} is no name: letters, digits, dots, hyphens, slashes and underscores, 63 at most",
            param_hint="--encoder",
        )
    options = _options(
        rejects, columns, delimiter, header, encoding, backslashes, "reject", dry_run, None, most_rejected
    )
    repeated = "more of a video that has one, and taken together with it"
    _run(import_vectors, file, dsn, json, options, summary, repeated, encoder=encoder)


def _options(
    rejects: Path | None,
    columns: list[str] | None,
    delimiter: str | None,
    header: str | None,
    encoding: str | None,
    backslashes: bool | None,
    unknown: str,
    dry_run: bool,
    chunk: int | None,
    most_rejected: float,
    scale: float | None = None,
) -> ImportOptions:
    from two_tower.data.dialects import DELIMITER
    from two_tower.data.imports import ImportOptions

    if unknown not in ("reject", "create"):
        raise typer.BadParameter(f"{unknown!r} is neither reject nor create", param_hint="--unknown")
    delimiter = {"\\t": "\t", "tab": "\t"}.get(delimiter or "", delimiter)
    if delimiter is not None and not re.fullmatch(DELIMITER, delimiter):
        raise typer.BadParameter(
            "a delimiter is one ASCII character other than a quote or an end of line, or ::", param_hint="--delimiter"
        )
    mapping = dict(pair.split("=", 1) for pair in columns or [] if "=" in pair)
    if len(mapping) != len(columns or []):
        raise typer.BadParameter("give THEIRS=OURS, each column once", param_hint="--map")
    return ImportOptions(
        rejects=rejects,
        delimiter=delimiter,
        encoding=encoding,
        backslashes=backslashes,
        columns=mapping,
        unknown="create" if unknown == "create" else "reject",
        dry_run=dry_run,
        chunk=chunk,
        say=say,
        header=tuple(name.strip() for name in (header or "").split(",") if name.strip()),
        scale=scale,
        most_rejected=most_rejected,
    )


def _run(
    work: Callable[..., ImportSummary],
    file: str,
    dsn: str | None,
    json: bool,
    options: ImportOptions,
    summary_file: Path | None,
    repeated: str = "replaced by a later row of the file",
    **arguments: Any,
) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from two_tower.server.connection import connect

    if summary_file and file != "-":
        require_other(summary_file, file)
    require_place(summary_file)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(),
        console=log, transient=True, disable=not log.is_terminal,
    )  # fmt: skip
    with connect(dsn, writes=True) as connection, bar:
        task = bar.add_task("reading", total=None)

        def progress(done: int, total: int | None, step: str) -> None:
            bar.update(task, completed=done, total=total, description=step)

        summary = work(connection, file if file == "-" else Path(file), options, progress, **arguments)
    if summary_file:
        write_text(summary_file, summary.to_json() + "\n")
    if json:
        echo_json(summary.to_json())
        return
    typer.echo(describe(summary, repeated))


def describe(summary: ImportSummary, repeated: str = "replaced by a later row of the file") -> str:
    """The summary in words; ``repeated`` says what happened to rows with the same key as another."""
    verb = "would be" if summary.dry_run else "were"
    lines = [
        f"{summary.source}: {summary.rows:,} rows in {summary.seconds:.1f} s",
        f"  {summary.inserted:,} {verb} inserted, {summary.updated:,} updated, {summary.unchanged:,} unchanged",
    ]
    if summary.resumed:
        lines.append(f"  {summary.resumed:,} came in before, with a run that was broken off")
    if summary.joined is not None:
        lines.append(f"  {summary.joined:.1%} of the rows are about a product of the catalogue")
    if summary.distribution:
        counts = ", ".join(f"{name}: {count:,}" for name, count in summary.distribution.items())
        lines.append(f"  {counts}")
    if summary.duplicates:
        lines.append(f"  {summary.duplicates:,} {repeated}")
    if summary.users_created or (summary.items_created and summary.items_created != summary.inserted):
        lines.append(f"  {summary.users_created:,} users and {summary.items_created:,} videos {verb} created")
    if summary.rejected:
        lines.append(f"  {summary.rejected:,} rejected: see {summary.rejects}")
    return "\n".join(lines)
