"""The import of one file: its transactions, its chunks, its resumption, and its result."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, LiteralString

import polars as pl
import psycopg
from psycopg.types.json import Jsonb

from two_tower.data.files import open_table
from two_tower.data.imports.cells import as_text
from two_tower.data.imports.hashes import Distinct
from two_tower.data.imports.kind import Kind
from two_tower.data.table import Rejects, Table, shown_names
from two_tower.database import take_turn
from two_tower.errors import UserError
from two_tower.progress import Say
from two_tower.rows import one
from two_tower.writing import encodable

Unknown = Literal["reject", "create"]
ReadProgress = Callable[[int, int | None, str], None]
"""Called with bytes read, total bytes (None if unknown), and the current step."""

ENOUGH_ROWS = 1_000
"""Fewest rows of a file in chunks after which the share of rejected ones is checked."""

_REPORT = ".rejects.csv"
LONGEST_FILE_NAME = 255
"""Bytes that file systems take."""

WORTH_ANALYZING = 1_000
"""Fewest written rows after which an import updates statistics."""

_SEE_OPERATORS: LiteralString = """
select set_config('search_path', concat_ws(', ', nullif(current_setting('search_path'), ''),
    string_agg(distinct quote_ident(n.nspname), ', ')), true)
from pg_catalog.pg_attribute a
join pg_catalog.pg_type t on t.oid = a.atttypid
join pg_catalog.pg_type b on b.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
join pg_catalog.pg_namespace n on n.oid = b.typnamespace and n.nspname <> 'pg_catalog'
where a.attnum > 0 and not a.attisdropped and a.attrelid in (
    to_regclass('public.videos'), to_regclass('public.tags'), to_regclass('public.performers'),
    to_regclass('public.user_video_decisions')
)
"""
"""A column of an extension's type, such as citext, is compared by the extension's operators. Its schema comes last in
the path, since the application's triggers may depend on the rest."""


@dataclass(frozen=True)
class ImportOptions:
    """Options of all imports."""

    rejects: Path | None = None
    """Path of the report of rejected rows; by default ``<name of the file>.rejects.csv`` in the working directory."""
    delimiter: str | None = None
    """By default a comma, semicolon, tab, vertical bar, two colons or a space, by the header."""
    encoding: str | None = None
    """By default UTF-8, UTF-16 by its byte order mark, or a Japanese encoding that is detected beyond doubt."""
    backslashes: bool | None = None
    """Whether a backslash in a CSV escapes what follows, as in dumps of MySQL; by default the first rows decide."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column of the file → its name here."""
    unknown: Unknown = "reject"
    """What to do with a review or decision about a product that the catalogue lacks."""
    dry_run: bool = False
    """Do everything, then roll back."""
    chunk: int | None = None
    """Rows per transaction; by default the file is one transaction."""
    say: Say = lambda _: None
    header: tuple[str, ...] = ()
    """The columns of a CSV without a header line."""
    scale: float | None = None
    """The file's highest rating, which becomes five stars; by default 5, or 10 if stars of the first rows go to 10."""
    most_rejected: float = 1.0
    """The share of rejected rows above which nothing is imported."""


@dataclass
class ImportSummary:
    """``rows`` = ``inserted`` + ``updated`` + ``unchanged`` + ``rejected`` + ``duplicates`` + ``resumed``."""

    source: str
    rows: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    duplicates: int = 0
    """Rows replaced by a later row of the file (or chunk) with the same key; for vectors, those combined with another
    of the same video."""
    resumed: int = 0
    """Rows that an earlier, interrupted run had imported, and that this one skipped."""
    users: int = 0
    """Distinct users in accepted rows, and in those that only the database refused."""
    items: int = 0
    """Distinct videos among them."""
    users_created: int = 0
    items_created: int = 0
    joined: float | None = None
    """For reviews and decisions: the share of rows whose product the catalogue has."""
    distribution: dict[str, int] = field(default_factory=dict)
    """For reviews: rows by stars, to the nearest half. For decisions: rows by decision. Without rejected rows."""
    seconds: float = 0.0
    rejects: Path | None = None
    """The report, if a row was rejected."""
    dry_run: bool = False

    def to_json(self) -> str:
        """The summary as a JSON object."""
        return encodable(json.dumps(asdict(self), default=str, ensure_ascii=False))


class Import:
    """The import of one file in one transaction, or in one per chunk."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        source: Path | str | Table,
        options: ImportOptions | None,
        progress: ReadProgress | None,
        rejects: Rejects | None = None,
    ) -> None:
        self.conn = conn
        self.source = source
        self.options = options or ImportOptions()
        self.progress = progress or (lambda *_: None)
        self.sender: ThreadPoolExecutor
        """The thread that sends rows to the database while the next are read and checked."""
        name = source.name if isinstance(source, Table) else str(source)
        self.rejects = rejects or Rejects(
            self.options.rejects or report_of("stdin" if name == "-" else name),
            name if isinstance(source, Path) else "-",
        )
        self.own_rejects = rejects is None
        self.summary = ImportSummary(name, dry_run=self.options.dry_run)
        self.users = Distinct()
        self.items = Distinct()
        self.joined = 0
        self.chunks = 0
        """Committed transactions."""
        self.scale = self.options.scale or 5.0
        """The file's highest rating, which becomes five stars."""
        self.scale_is_settled = False

    def run(self, kind: type[Kind], **arguments: Any) -> ImportSummary:
        try:
            return self.transfer(kind, **arguments)
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            raise UserError(
                f"the database is not set up: {error.diag.message_primary}", "run `two-tower migrate`"
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise UserError(
                f"{self.summary.source}: {self.done()}: {error.diag.message_primary}",
                "import as the owner of the tables, or as a role that may write them and that no policy holds back",
            ) from error
        except psycopg.OperationalError as error:
            if not self.conn.closed:
                raise
            done = self.done()
            raise UserError(
                f"{self.summary.source}: the connection to the database was lost, and {done}: {str(error).strip()}",
                "once the database is back, run this again: it finishes the work",
            ) from error

    def done(self) -> str:
        """What a failed import has left in the database."""
        return f"{self.chunks} chunks are in" if self.chunks else "nothing is imported"

    def transfer(self, kind: type[Kind], **arguments: Any) -> ImportSummary:
        started = time.monotonic()
        summary = self.summary
        resumption = Resumption(self, kind) if self.options.chunk and not self.options.dry_run else None
        with ExitStack() as stack:
            if self.own_rejects:
                stack.enter_context(self.rejects)
                if not resumption:
                    self.rejects.begin()
            table = stack.enter_context(self.open(kind))
            columns = choose_columns(table, kind)
            batches = stack.enter_context(closing(table.batches(columns)))
            pending: pl.DataFrame | None = None
            outermost = self.conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            while True:
                with (
                    self.conn.transaction(force_rollback=self.options.dry_run),
                    self.conn.cursor() as cursor,
                    ThreadPoolExecutor(1) as self.sender,
                ):
                    if outermost:
                        # Commits of others during the import are visible, whatever the database's default is.
                        cursor.execute("set transaction isolation level read committed")
                    cursor.execute("set local jit = off")
                    cursor.execute("set local work_mem = '128MB'")
                    cursor.execute(_SEE_OPERATORS)
                    cursor.execute(
                        "set constraints all immediate"
                    )  # a row is refused by its statement, not at the commit
                    if resumption:
                        resumption.catch_up(cursor)
                    work = kind(self, cursor, columns, **arguments)
                    room = self.options.chunk if resumption else None
                    last = 0
                    while room is None or room > 0:
                        batch = next(batches, None) if pending is None else pending
                        fresh, pending = pending is None, None
                        if batch is None:
                            break
                        if fresh:
                            require_plain(table.name, batch, kind.lists)
                            kind.look(self, batch)
                            self.scale_is_settled = True
                        if resumption:
                            batch = resumption.rest(batch)
                        if room is not None:
                            batch, left = batch[:room], batch[room:]
                            pending = left if len(left) else None
                            room -= len(batch)
                        last = batch["line"].max() if len(batch) else last  # type: ignore[assignment]
                        work.stage(batch)
                        self.progress(table.read_bytes, table.total_bytes, "reading")
                    self.progress(table.read_bytes, table.total_bytes, "merging")
                    work.settle()
                    work.merge()
                    work.count_distinct()
                    if batch is None:
                        work.finish()
                    self.require_accepted(table.rows, finished=batch is None)
                    self.rejects.flush()  # a full disk fails the import before the commit
                    if resumption:
                        resumption.record(cursor, last, finished=batch is None)
                self.chunks += 1
                if batch is None:
                    break
        summary.rows = table.rows
        summary.rejected = self.rejects.rows
        summary.rejects = self.rejects.path if self.rejects.rows or self.rejects.passed_over else None
        summary.resumed = self.rejects.passed_over + (resumption.rows if resumption else 0)
        if kind.refers_to_products:
            summary.users, summary.items = self.users.count(), self.items.count()
            rows = summary.rows - summary.resumed
            summary.joined = round(self.joined / rows, 6) if rows else None
        taken = summary.rows - summary.rejected - summary.duplicates - summary.resumed
        summary.unchanged = taken - summary.inserted - summary.updated
        summary.distribution = dict(sorted(summary.distribution.items()))
        if summary.inserted + summary.updated >= WORTH_ANALYZING and not self.options.dry_run:
            # A refresh may follow before autovacuum runs, and would plan for empty tables.
            self.conn.execute(kind.analyze)
        summary.seconds = round(time.monotonic() - started, 3)
        return summary

    def require_accepted(self, rows: int, *, finished: bool) -> None:
        """Raises UserError if more of the rows so far were rejected than allowed: it may be the wrong kind of file."""
        if self.own_rejects and (finished or rows >= ENOUGH_ROWS):
            remedy = "; --most-rejected 1 imports the others all the same"
            self.rejects.require_few(self.summary.source, rows, self.options.most_rejected, self.done(), remedy)

    def open(self, kind: type[Kind]) -> Table:
        """Opens the file and reads its header."""
        if isinstance(self.source, Table):
            return self.source
        known = [*(name for group in kind.required for name in group), *kind.optional]
        for theirs, ours in self.options.columns.items():
            if ours not in known:
                raise UserError(
                    f"--map {theirs}={ours}: {ours!r} is no column of {kind.name}", f"those are: {', '.join(known)}"
                )
        return open_table(
            self.source,
            self.rejects,
            expected=set(known),
            renamed=self.options.columns,
            delimiter=self.options.delimiter,
            encoding=self.options.encoding,
            names=self.options.header,
            backslashes=self.options.backslashes,
            say=self.options.say,
        )

    def reject(self, batch: pl.DataFrame, faults: Iterable[tuple[str, pl.Expr, str]]) -> pl.DataFrame:
        """As :func:`without`, with this import's report."""
        return without(batch, faults, self.rejects)


def report_of(name: str) -> Path:
    """The usual path of the report of a file's rejected rows, in the working directory."""
    stem = Path(name).name.split(".")[0]
    while len(os.fsencode(stem)) > LONGEST_FILE_NAME - len(_REPORT):
        stem = stem[:-1]
    return Path(f"{stem}{_REPORT}")


def without(batch: pl.DataFrame, faults: Iterable[tuple[str, pl.Expr, str]], rejects: Rejects) -> pl.DataFrame:
    """The rows of ``batch`` that have none of ``faults``, each (column, condition, reason); the others go to
    ``rejects``, by the first of their faults. ``batch`` has ``line``."""
    faults = list(faults)
    which = pl.coalesce(pl.when(condition).then(i) for i, (_, condition, _) in enumerate(faults))
    marked = batch.with_columns(which.alias("fault"))
    if marked["fault"].null_count() == len(marked):
        return batch
    bad = marked.filter(pl.col("fault").is_not_null())
    for i in bad["fault"].unique().sort():
        column, _, reason = faults[i]
        rows = bad.filter(fault=i).select("line", pl.col(column).alias("value"))
        rejects.add_rows(rows.with_columns(as_text(rows["value"])), column, reason)
    return batch.filter(marked["fault"].is_null())


class Resumption:
    """The position up to which a file is imported in chunks, in the job log, committed with each chunk.

    The next run continues an interrupted one, and two concurrent runs share the work: each chunk begins after the last
    one that is committed. A file is the same if its name, size and modification time are, and it is read in the same
    way. A pipe starts over, which is safe: existing rows are not written again.
    """

    def __init__(self, task: Import, kind: type[Kind]) -> None:
        self.task = task
        self.run: int | None = None
        self.after = 0
        """The last line that is already imported."""
        self.rows = 0
        """Skipped rows."""
        self.shared = False
        """Whether another run is known to import the same file."""
        path = Path(str(task.source))
        if str(task.source) == "-" or not path.is_file():
            if task.own_rejects:
                task.rejects.begin()
            return
        found = path.stat()
        file = Jsonb(
            {
                "file": encodable(str(path.resolve())),
                "bytes": found.st_size,
                "changed": found.st_mtime_ns,
                "read": [
                    dict(task.options.columns),
                    task.options.delimiter,
                    task.options.encoding,
                    task.options.unknown,
                    list(task.options.header),
                    task.options.scale,
                    task.options.backslashes,
                ],
            }
        )
        job = f"import {kind.name}"
        with task.conn.transaction(), task.conn.cursor() as cursor:
            cursor.execute("set transaction isolation level read committed")
            take_turn(task.conn, job, "another import in chunks", task.options.say)
            self.run = one(
                task.conn,
                "with latest as (select id, finished_at from two_tower.job_runs"
                " where job = %(job)s and result @> %(file)s order by id desc limit 1),"
                " made as (insert into two_tower.job_runs (job, result)"
                """ select %(job)s, %(file)s::jsonb || '{"line": 0}'"""
                " where not exists (select from latest where finished_at is null) returning id)"
                " select coalesce((select id from made), (select id from latest))",
                {"job": job, "file": file},
            )
            # No other run is in the middle of a chunk now, or writes the report.
            self.catch_up(cursor)
            if task.own_rejects:
                task.rejects.begin(self.after)
        if self.after:
            task.options.say(
                f"{path}: goes on after line {self.after:,}, where an earlier run was broken off or is by now;"
                " without --chunk it starts over"
            )

    def catch_up(self, cursor: psycopg.Cursor[Any]) -> None:
        """Waits for the chunk of another run of the same file, and continues after it."""
        if self.run is None:
            return
        query = (
            "select (result ->> 'line')::bigint, finished_at is not null from two_tower.job_runs where id = %s"
            " for update"
        )
        row = cursor.execute(f"{query} skip locked", [self.run]).fetchone()
        if row is None and not self.shared:
            self.shared = True
            self.task.options.say("waiting for a chunk of another run of the same file")
        row = row or cursor.execute(query, [self.run]).fetchone()
        if row is None:
            return  # purged from the job log after a week
        line, finished = row
        self.after = sys.maxsize if finished else line
        self.task.rejects.pass_over(self.after)

    def rest(self, batch: pl.DataFrame) -> pl.DataFrame:
        """The rows that are not imported yet."""
        if not self.after:
            return batch
        left = batch.filter(pl.col("line") > self.after)
        self.rows += len(batch) - len(left)
        return left

    def record(self, cursor: psycopg.Cursor[Any], line: int, *, finished: bool) -> None:
        """Records the position in the transaction of a chunk."""
        cursor.execute(
            "update two_tower.job_runs set"
            " result = result || jsonb_build_object('line', greatest((result ->> 'line')::bigint, %s)),"
            " finished_at = coalesce(finished_at, case when %s then clock_timestamp() end) where id = %s",
            [line, finished, self.run],
        )


def require_plain(name: str, batch: pl.DataFrame, lists: Iterable[str]) -> None:
    """Raises UserError if a column has lists where a row must have a single value."""
    for column, kind in batch.schema.items():
        if isinstance(kind, pl.List) and column not in lists:
            raise UserError(f"{name}: the column {column} holds lists, where each row has one value")


def choose_columns(table: Table, kind: type[Kind]) -> list[str]:
    """The columns to read: the first present one of each group of alternatives, and all optional ones."""
    chosen, missing = [], []
    for group in kind.required:
        present = [name for name in group if name in table.columns]
        chosen += present[:1]
        missing += [] if present else [" or ".join(group)]
    if missing:
        raise UserError(
            f"{table.name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}",
            f"its header has: {shown_names(table.columns)}; a column of another name can be mapped: "
            f"--map theirs={missing[0].split()[0]}",
        )
    return chosen + [name for name in kind.optional if name in table.columns]
