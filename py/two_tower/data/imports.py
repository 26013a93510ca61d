"""Catalogues, reviews and decisions from files into the database: one transaction per file, all of it or nothing.

A file that is too large for that goes in chunks, one transaction each; a run that is broken off is resumed by the next.

Batches of the file are checked column by column, bad rows set aside, the others copied into a temporary table; then a
few statements merge that table with what is there. Rows that are equal already are not written, so a second import of
a file changes nothing and wakes no trigger. What a table of the application's own refuses, by whatever constraint, type
or trigger, is set aside as well: the statements that fail are done again on halves, down to the row.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, LiteralString
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import numpy as np
import polars as pl
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from two_tower.errors import UserError
from two_tower.ids import UUID_BYTES, UUID_PATTERN, user_uuids, uuid_bytes
from two_tower.data.files import Rejects, Table, open_table, table_of

Unknown = Literal["reject", "create"]
Progress = Callable[[int, int | None, str], None]
"""Called with bytes read, bytes in all (None where unknown), and what is being done."""


WORTH_ANALYZING = 1_000
"""Rows written from which on an import leaves fresh statistics behind."""


@dataclass(frozen=True)
class ImportOptions:
    """What is the same for every import."""

    rejects: Path | None = None
    """Where the report of rejected rows goes; else ``<name of the file>.rejects.csv`` in the working directory."""
    delimiter: str | None = None
    """Else a comma, semicolon or tab, by the header."""
    encoding: str | None = None
    """Else UTF-8, or UTF-16 by its byte order mark."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column of the file → the name that it has here."""
    unknown: Unknown = "reject"
    """What becomes of a review or decision about a product that the catalogue lacks."""
    dry_run: bool = False
    """Do everything, then roll back."""
    chunk: int | None = None
    """Rows per transaction; else the file is one transaction."""
    say: Callable[[str], None] = lambda _: None


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
    """Rows that a later row of the file (of the chunk), with the same key, replaced."""
    resumed: int = 0
    """Rows that an earlier run, broken off, had brought in, and that this one passed over."""
    users: int = 0
    """Distinct users among the rows that were taken, and those that only the database refused."""
    items: int = 0
    """Distinct videos among them."""
    users_created: int = 0
    items_created: int = 0
    joined: float | None = None
    """Of reviews and decisions: the share of the rows whose product the catalogue knew."""
    distribution: dict[str, int] = field(default_factory=dict)
    """Of reviews: rows by stars, to the nearest half. Of decisions: rows by decision. Without those rejected."""
    seconds: float = 0.0
    rejects: Path | None = None
    """The report, if a row was rejected."""
    dry_run: bool = False

    def to_json(self) -> str:
        """The summary as a JSON object."""
        return json.dumps(asdict(self), default=str, ensure_ascii=False)


def import_catalog(
    conn: psycopg.Connection[Any],
    source: Path | str,
    options: ImportOptions | None = None,
    progress: Progress | None = None,
) -> ImportSummary:
    """Inserts and updates videos, their tags and their performers, by ``product_url``.

    Columns: ``product_url``, ``title``, and any of ``tags``, ``performers`` (lists separated by ``|``), ``maker``,
    ``label``, ``series``, ``source``, ``price``, ``duration_seconds``, ``released_at``, ``thumbnail_url``. A column
    that the file lacks leaves values alone; an empty cell empties them. A product whose affiliate link the catalogue
    has may be named by the address that the link leads to. Raises UserError if the file cannot be imported,
    psycopg.Error if the database refuses; in both cases nothing has changed.
    """
    return _Import(conn, source, options, progress).run(_Catalog)


def import_reviews(
    conn: psycopg.Connection[Any],
    source: Path | str,
    options: ImportOptions | None = None,
    progress: Progress | None = None,
) -> ImportSummary:
    """Inserts and updates reviews: ``product_url``, ``reviewer_id``, ``stars`` (0 to 5), maybe ``created_at``.

    Raises as ``import_catalog``.
    """
    return _Import(conn, source, options, progress).run(_Reviews)


def import_decisions(
    conn: psycopg.Connection[Any],
    source: Path | str,
    options: ImportOptions | None = None,
    progress: Progress | None = None,
    *,
    create_users: bool = False,
) -> ImportSummary:
    """Inserts and updates decisions: ``user_id`` or ``reviewer_id``; ``product_url`` or ``video_id``; ``decision``
    (like, nope or dislike, skip) or ``label`` (1, 0); maybe ``created_at``, else they were taken now.

    ``create_users`` inserts unknown users into ``auth.users``; otherwise their rows are rejected. Raises as
    ``import_catalog``.
    """
    return _Import(conn, source, options, progress).run(_Decisions, create_users=create_users)


def import_catalog_rows(
    conn: psycopg.Connection[Any], name: str, rows: pl.DataFrame, rejects: Rejects
) -> ImportSummary:
    """Does with ``rows`` what ``import_catalog`` does with those of a file.

    ``rows`` has ``line``, by which a rejected row is reported, and columns of a catalogue; ``tags`` and ``performers``
    may be lists. May run inside a transaction of the caller's.
    """
    before = rejects.rows
    summary = _Import(conn, table_of(name, rows), None, None, rejects).run(_Catalog)
    summary.rejected = rejects.rows - before
    summary.unchanged = len(rows) - summary.rejected - summary.duplicates - summary.inserted - summary.updated
    return summary


class _Import:
    """One file on its way into one transaction, or into one per chunk."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        source: Path | str | Table,
        options: ImportOptions | None,
        progress: Progress | None,
        rejects: Rejects | None = None,
    ) -> None:
        self.conn = conn
        self.source = source
        self.options = options or ImportOptions()
        self.progress = progress or (lambda *_: None)
        self.sender: ThreadPoolExecutor
        """The thread in which rows go to the database while the next are read and checked."""
        name = source.name if isinstance(source, Table) else str(source)
        stem = "stdin" if name == "-" else Path(name).name.split(".")[0]
        self.rejects = rejects or Rejects(self.options.rejects or Path(f"{stem}.rejects.csv"))
        self.own_rejects = rejects is None
        self.summary = ImportSummary(name, dry_run=self.options.dry_run)
        self.users = _Distinct()
        self.items = _Distinct()
        self.joined = 0
        self.chunks = 0
        """Transactions that are committed."""

    def run(self, kind: type[_Kind], **arguments: Any) -> ImportSummary:
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
        """What a failure has left in the database."""
        return f"{self.chunks} chunks are in" if self.chunks else "nothing is imported"

    def transfer(self, kind: type[_Kind], **arguments: Any) -> ImportSummary:
        started = time.monotonic()
        summary = self.summary
        resumption = _Resumption(self, kind) if self.options.chunk and not self.options.dry_run else None
        with ExitStack() as stack:
            if self.own_rejects:
                stack.enter_context(self.rejects)
                self.rejects.begin(resumption.after if resumption else 0)
            table = stack.enter_context(self.open(kind))
            columns = _choose_columns(table, kind)
            batches = stack.enter_context(closing(table.batches(columns)))
            pending: pl.DataFrame | None = None
            while True:
                with (
                    self.conn.transaction(force_rollback=self.options.dry_run),
                    self.conn.cursor() as cursor,
                    ThreadPoolExecutor(1) as self.sender,
                ):
                    cursor.execute("set local jit = off")
                    cursor.execute("set local work_mem = '128MB'")
                    cursor.execute(_SEE_OPERATORS)
                    cursor.execute("set constraints all immediate")  # a row is refused with its statement, or never
                    work = kind(self, cursor, columns, **arguments)
                    room = self.options.chunk if resumption else None
                    last = 0
                    while room is None or room > 0:
                        batch = next(batches, None) if pending is None else pending
                        pending = None
                        if batch is None:
                            break
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
                    if resumption:
                        self.rejects.flush()
                        resumption.record(cursor, last, finished=batch is None)
                self.chunks += 1
                if batch is None:
                    break
        summary.rows = table.rows
        summary.rejected = self.rejects.rows
        summary.rejects = self.rejects.path if self.rejects.rows or self.rejects.passed_over else None
        summary.resumed = self.rejects.passed_over + (resumption.rows if resumption else 0)
        if issubclass(kind, _Feedback):
            summary.users, summary.items = self.users.count(), self.items.count()
            rows = summary.rows - summary.resumed
            summary.joined = round(self.joined / rows, 6) if rows else None
        taken = summary.rows - summary.rejected - summary.duplicates - summary.resumed
        summary.unchanged = taken - summary.inserted - summary.updated
        summary.distribution = dict(sorted(summary.distribution.items()))
        if summary.inserted + summary.updated >= WORTH_ANALYZING and not self.options.dry_run:
            # A refresh may follow before autovacuum has looked, and would plan for empty tables.
            self.conn.execute(kind.analyze)
        summary.seconds = round(time.monotonic() - started, 3)
        return summary

    def open(self, kind: type[_Kind]) -> Table:
        """The file, its header read."""
        if isinstance(self.source, Table):
            return self.source
        return open_table(
            self.source,
            self.rejects,
            expected={name for group in kind.required for name in group} | set(kind.optional),
            renamed=self.options.columns,
            delimiter=self.options.delimiter,
            encoding=self.options.encoding,
            say=self.options.say,
        )

    def reject(self, batch: pl.DataFrame, faults: Iterable[tuple[str, pl.Expr, str]]) -> pl.DataFrame:
        """The rows of ``batch`` that have none of ``faults``, each (column, condition, reason). The first counts."""
        faults = list(faults)
        which = pl.coalesce(pl.when(condition).then(i) for i, (_, condition, _) in enumerate(faults))
        marked = batch.with_columns(which.alias("fault"))
        if marked["fault"].null_count() < len(marked):
            bad = marked.filter(pl.col("fault").is_not_null())
            for i in bad["fault"].unique().sort():
                column, _, reason = faults[i]
                rows = bad.filter(fault=i).select("line", pl.col(column).alias("value"))
                self.rejects.add_rows(rows.with_columns(_shown(rows["value"])), column, reason)
            return batch.filter(marked["fault"].is_null())
        return batch


class _Resumption:
    """Where an earlier run of the same file, in chunks, was broken off: kept in the job log, committed with each chunk.

    A file is the same if its name, size and time of change are, and it is read in the same way. What comes through a
    pipe starts over, which is safe: rows that are in already are not written again.
    """

    def __init__(self, task: _Import, kind: type[_Kind]) -> None:
        self.task = task
        self.job = f"import {kind.name}"
        self.run: int | None = None
        self.after = 0
        """The last line that is in already."""
        self.rows = 0
        """Rows passed over."""
        self.file: dict[str, Any] | None = None
        path = Path(str(task.source))
        if str(task.source) != "-" and path.is_file():
            found = path.stat()
            self.file = {
                "file": str(path.resolve()),
                "bytes": found.st_size,
                "changed": found.st_mtime_ns,
                "read": [
                    dict(task.options.columns),
                    task.options.delimiter,
                    task.options.encoding,
                    task.options.unknown,
                ],
            }
            with task.conn.transaction():
                row = task.conn.execute(
                    "select id, (result ->> 'line')::bigint, finished_at is null from two_tower.job_runs"
                    " where job = %s and result @> %s order by id desc limit 1",
                    [self.job, Jsonb(self.file)],
                ).fetchone()
            if row and row[2]:
                self.run, self.after = row[0], row[1]
                task.options.say(
                    f"{path}: goes on after line {self.after:,}, where an earlier run was broken off;"
                    " without --chunk it starts over"
                )

    def rest(self, batch: pl.DataFrame) -> pl.DataFrame:
        """The rows that are not in yet."""
        if not self.after:
            return batch
        left = batch.filter(pl.col("line") > self.after)
        self.rows += len(batch) - len(left)
        return left

    def record(self, cursor: psycopg.Cursor[Any], line: int, *, finished: bool) -> None:
        """Says, in the transaction of a chunk, that it is in."""
        if self.file is None:
            return
        self.after = max(self.after, line)
        state = Jsonb({**self.file, "line": self.after})
        if self.run is None:
            row = cursor.execute(
                "insert into two_tower.job_runs (job, result) values (%s, %s) returning id", [self.job, state]
            ).fetchone()
            assert row is not None
            self.run = row[0]
        cursor.execute(
            "update two_tower.job_runs set result = %s, finished_at = case when %s then clock_timestamp() end"
            " where id = %s",
            [state, finished, self.run],
        )


def _choose_columns(table: Table, kind: type[_Kind]) -> list[str]:
    """The columns to read: the first present of each group of alternatives, and whatever optional ones there are."""
    chosen, missing = [], []
    for group in kind.required:
        present = [name for name in group if name in table.columns]
        chosen += present[:1]
        missing += [] if present else [" or ".join(group)]
    if missing:
        raise UserError(
            f"{table.name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}",
            f"its header has: {', '.join(table.columns)}; a column of another name can be mapped: "
            f"--map theirs={missing[0].split()[0]}",
        )
    return chosen + [name for name in kind.optional if name in table.columns]


_ANALYZE: LiteralString = "if v_to - v_from > 1000 then analyze {}; end if"
"""A step: the steps after it are planned for what is in a table, but where rows are done one by one."""
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
"""Where a column is of an extension's type, such as citext, it is compared as its operators compare. Last on the
path, since the application's triggers may lean on the rest of it."""


@dataclass(frozen=True)
class _Written:
    """What came of writing rows."""

    counts: list[int]
    """Rows that each step wrote."""
    refused: pl.DataFrame
    """``line``, ``field`` (null where the database names none) and ``reason`` of the rows that it refused."""


# Halves wait on a stack, so that lines come in order. The index is made only where it is needed. Classes of errors that
# are raised: connections, transactions, rights and definitions, resources, limits, states and locks, the operator, the
# system, the server itself.
_WRITE_ROWS = sql.SQL(
    """do $two_tower_import$
declare
    v_starts bigint[] := array[(select min(line) from {table})];
    v_ends bigint[] := array[(select max(line) from {table})];
    v_from bigint;
    v_to bigint;
    v_rows bigint;
    v_counts bigint[];
    v_total bigint[] := array{none};
    v_failed boolean := false;
    v_field text;
    v_constraint text;
    v_table text;
    v_schema text;
begin
    while v_starts[1] is not null loop
        v_from := v_starts[cardinality(v_starts)];
        v_to := v_ends[cardinality(v_ends)];
        v_starts := trim_array(v_starts, 1);
        v_ends := trim_array(v_ends, 1);
        begin
            v_counts := array[]::bigint[];
            {steps}
            v_total := (select array_agg(t.n + c.n order by t.at) from unnest(v_total) with ordinality t (n, at)
                join unnest(v_counts) with ordinality c (n, at) using (at));
        exception when others then
            if left(sqlstate, 2) in ('08', '25', '40', '42', '53', '54', '55', '57', '58', 'XX') then
                raise;
            elsif v_from = v_to then
                get stacked diagnostics v_field = column_name, v_constraint = constraint_name,
                    v_table = table_name, v_schema = schema_name;
                -- A constraint on one column names it.
                insert into pg_temp.refused select v_from, coalesce(nullif(v_field, ''), (
                    select a.attname from pg_catalog.pg_constraint k
                    join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = k.conkey[1]
                    where k.conname = v_constraint and cardinality(k.conkey) = 1
                        and k.conrelid = to_regclass(format('%I.%I', v_schema, v_table))
                )), sqlerrm;
            else
                if not v_failed then
                    v_failed := true;
                    create index on {table} (line);
                end if;
                v_starts := v_starts || array[v_from + (v_to - v_from) / 2 + 1, v_from];
                v_ends := v_ends || array[v_to, v_from + (v_to - v_from) / 2];
            end if;
        end;
    end loop;
    perform set_config('two_tower.import_counts', v_total::text, true);
end
$two_tower_import$"""
)


class _Kind(ABC):
    """What one kind of file holds, and how it is merged."""

    name: str
    analyze: LiteralString
    """Gathers statistics of the tables that this kind fills."""
    required: tuple[tuple[str, ...], ...]
    """Groups of alternatives."""
    optional: tuple[str, ...] = ()

    def __init__(self, task: _Import, cursor: psycopg.Cursor[Any], columns: list[str]) -> None:
        self.task = task
        self.summary = task.summary
        self.cursor = cursor
        self.columns = columns

    @abstractmethod
    def stage(self, batch: pl.DataFrame) -> None:
        """Checks a batch and copies it into the temporary table."""

    @abstractmethod
    def merge(self) -> None:
        """Merges the temporary table, and completes the summary."""

    def settle(self) -> None:  # noqa: B027 - not every kind has anything to wait for
        """Waits until the connection is free."""

    def count_distinct(self) -> None:  # noqa: B027 - most kinds count as they merge
        """Says how many users and items the file has, where merging has not."""

    def finish(self) -> None:  # noqa: B027 - most kinds have nothing to do once
        """Does, in the file's last transaction, what is to be done once."""

    def write_rows(self, table: LiteralString, steps: Sequence[LiteralString | sql.Composed]) -> _Written:
        """Runs ``steps`` on all rows of ``table``; where one fails, on halves of them, down to each that it refuses.

        Each step is a statement about the rows whose ``line`` is between ``v_from`` and ``v_to``; together they are
        done or undone. What is not the fault of a row, such as a missing right or a lost lock, is raised.
        """
        self.cursor.execute("drop table if exists pg_temp.refused")
        self.cursor.execute("create temp table refused (line bigint, field text, reason text) on commit drop")
        counted = sql.SQL(" ").join(
            sql.SQL("{}; get diagnostics v_rows = row_count; v_counts := v_counts || v_rows;").format(step)
            for step in (sql.SQL(step) if isinstance(step, str) else step for step in steps)
        )
        self.cursor.execute(
            _WRITE_ROWS.format(table=sql.SQL(table), steps=counted, none=sql.SQL(str([0] * len(steps))))
        )
        (counts,) = self.one("select current_setting('two_tower.import_counts')::bigint[]")
        refused = self.cursor.execute("select line, field, reason from pg_temp.refused order by line").fetchall()
        schema = {"line": pl.Int64, "field": pl.String, "reason": pl.String}
        return _Written(counts, pl.DataFrame(refused, schema=schema, orient="row"))

    def reject_refused(self, written: _Written, table: LiteralString, fields: Mapping[str, tuple[str, str]]) -> None:
        """Reports rows that the database refused. ``fields``: its column → the file's, and an expression of its value
        in ``table`` (``t``)."""
        for (refused, reason), lines in written.refused.group_by("field", "reason", maintain_order=True):
            column, value = fields.get(str(refused), (str(refused or ""), "''"))
            values = self.cursor.execute(
                sql.SQL("select t.line, {}::text from {} t where t.line = any (%s)").format(
                    sql.SQL(value),
                    sql.SQL(table),
                ),
                [lines["line"].to_list()],
            ).fetchall()
            frame = pl.DataFrame(values, schema={"line": pl.Int64, "value": pl.String}, orient="row")
            self.task.rejects.add_rows(frame.sort("line"), column, f"refused by the database: {reason}")

    def types(self, table: LiteralString) -> dict[str, str]:
        """Column → type. Numbers are compared as they will be rounded; a text too long fails and is not cut."""
        return dict(
            self.cursor.execute(
                "select attname, format_type(atttypid, case typcategory when 'S' then -1 else atttypmod end)"
                " from pg_catalog.pg_attribute join pg_catalog.pg_type t on t.oid = atttypid"
                " where attrelid = %s::regclass and attnum > 0 and not attisdropped",
                [table],
            ).fetchall()
        )

    def count(self, query: LiteralString | sql.Composed) -> int:
        """Rows that a statement wrote."""
        return self.cursor.execute(query).rowcount

    def one(self, query: LiteralString | sql.Composed) -> Any:
        """The only row of a query."""
        return self.cursor.execute(query).fetchone()

    def lock_catalogue(self) -> None:
        """Waits for others who add to the catalogue: two who meet the same new tag would fail one of them."""
        self.cursor.execute("select pg_advisory_xact_lock(hashtextextended('two_tower.catalogue', 0))")

    def copy(self, table: LiteralString, frame: pl.DataFrame) -> None:
        """Copies a frame into a table with the same columns in the same order. Times are in UTC."""
        with self.cursor.copy(sql.SQL("copy {} from stdin (format csv)").format(sql.SQL(table))) as copy:
            for part in frame.iter_slices(50_000):
                copy.write(part.write_csv(include_header=False, datetime_format="%Y-%m-%d %H:%M:%S%.6f+00"))


# ---------------------------------------------------------------------------------------------------------- catalogue


_LINK = "[?&]lurl=http"
"""What an affiliate link to a product contains. The catalogue knows it by the address that it leads to as well."""


def _leads_to(link: str) -> str:
    return parse_qs(urlsplit(link).query)["lurl"][0]


class _Catalog(_Kind):
    name = "catalog"
    analyze = "analyze public.videos, public.tags, public.video_tags, public.performers, public.video_performers"
    required = (("product_url",), ("title",))
    lists: ClassVar = {
        "tags": ("tags", "video_tags", "tag_id"),
        "performers": ("performers", "video_performers", "performer_id"),
    }
    values: ClassVar = {
        "title": "title",
        "maker": "maker",
        "label": "label",
        "series": "series",
        "source": "source",
        "price": "price",
        "duration_seconds": "duration_seconds",
        "released_at": "product_released_at",
        "thumbnail_url": "thumbnail_url",
    }
    optional = (*lists, *(name for name in values if name != "title"))

    def __init__(self, task: _Import, cursor: psycopg.Cursor[Any], columns: list[str]) -> None:
        super().__init__(task, cursor, columns)
        self.texts = [name for name in self.values if name in columns]
        self.present = [name for name in self.lists if name in columns]
        cursor.execute("drop table if exists pg_temp.staged, pg_temp.staged_names, pg_temp.matched, pg_temp.touched")
        # As text, where a column of an adopted table may have a type of its own; checked before, cast in the merge.
        # The address alone has the column's, less its checks: the table says which are the same, such as of a citext.
        self.columns_of_videos = self.types("public.videos")
        (address,) = self.one(
            "with recursive kinds as ("
            " select a.atttypid as id from pg_catalog.pg_attribute a"
            " where a.attrelid = 'public.videos'::regclass and a.attname = 'product_url'"
            " union all select t.typbasetype from kinds k join pg_catalog.pg_type t on t.oid = k.id and t.typtype = 'd'"
            ") select format_type(t.oid, -1)"
            " from kinds k join pg_catalog.pg_type t on t.oid = k.id and t.typtype <> 'd'"
        )
        cursor.execute(
            sql.SQL("create temp table staged (line bigint, product_url {}, {}) on commit drop").format(
                sql.SQL(address),
                sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(name)) for name in self.texts),
            )
        )
        cursor.execute("create temp table staged_names (kind text, line bigint, name text) on commit drop")
        cursor.execute("create temp table touched (video_id uuid, is_new boolean) on commit drop")
        links = cursor.execute(
            "select product_url from public.videos where product_url ~ %s order by product_url desc", [_LINK]
        ).fetchall()
        self.links = {_leads_to(link): link for (link,) in links}
        """Address → the affiliate link under which the catalogue has it."""

    def stage(self, batch: pl.DataFrame) -> None:
        strings = [name for name, kind in batch.schema.items() if kind == pl.String and name not in self.lists]
        batch = batch.with_columns(pl.col(strings).str.strip_chars().replace("", None))
        if self.links:
            batch = batch.with_columns(pl.col("product_url").replace(self.links))
        faults = [("product_url", pl.col("product_url").is_null(), "empty")]
        parsed = {}
        if "price" in batch.columns:
            price, given = _number(batch["price"]), pl.col("price").is_not_null()
            parsed["price"] = pl.Series("price_", price)
            value = pl.col("price_")
            zero = value == 0
            if batch.schema["price"] == pl.String:  # 1e-400 is not, though no float can tell
                zero &= ~pl.col("price").str.contains("^[^eE]*[1-9]")
            good = zero | value.is_between(_PRICES[0], _PRICES[1], closed="left")
            reason = "not a price: 0, or a number from 0.000001 to below 1,000,000,000,000"
            faults.append(("price", given & ~good.fill_null(value=False), reason))
        if "duration_seconds" in batch.columns:
            parsed["duration_seconds"] = _number(batch["duration_seconds"]).alias("duration_seconds_")
            value, given = pl.col("duration_seconds_"), pl.col("duration_seconds").is_not_null()
            good = value.is_between(0, 2**31 - 1) & (value == value.floor())
            reason = "not a duration: a whole number of seconds"
            faults.append(("duration_seconds", given & ~good.fill_null(value=False), reason))
        if "released_at" in batch.columns:
            parsed["released_at"] = _timestamps(batch["released_at"]).alias("released_at_")
            bad = pl.col("released_at").is_not_null() & pl.col("released_at_").is_null()
            faults.append(("released_at", bad, "not a date that reads one way only, such as 2025-01-31"))
            faults.append(("released_at", _outside("released_at_", *_RELEASES), "not a date from 1850 to 2199"))
        batch = self.task.reject(batch.with_columns(parsed.values()), faults)
        if "released_at" in parsed:
            when = pl.col("released_at_").dt.strftime("%Y-%m-%d %H:%M:%S%.6f+00")
            batch = batch.with_columns(when.alias("released_at"))
        if "duration_seconds" in parsed:
            batch = batch.with_columns(pl.col("duration_seconds_").cast(pl.Int64).alias("duration_seconds"))
        self.copy("pg_temp.staged", batch.select("line", "product_url", *self.texts))
        for kind in self.present:
            names = pl.col(kind) if batch.schema[kind] == pl.List else pl.col(kind).cast(pl.String).str.split("|")
            frame = batch.select(pl.lit(kind).alias("kind"), "line", names.alias("name")).explode("name")
            frame = frame.with_columns(pl.col("name").cast(pl.String).str.strip_chars())
            self.copy("pg_temp.staged_names", frame.filter(pl.col("name") != "").unique(maintain_order=True))

    def merge(self) -> None:
        self.lock_catalogue()
        self.cursor.execute("analyze pg_temp.staged, pg_temp.staged_names")
        self.summary.duplicates += self.count(
            "delete from pg_temp.staged s using pg_temp.staged l"
            " where l.product_url = s.product_url and l.line > s.line"
        )
        self.cursor.execute("drop table if exists pg_temp.matched, pg_temp.wanted")
        self.cursor.execute("create temp table matched (line bigint primary key, video_id uuid) on commit drop")
        self.cursor.execute("create temp table wanted (video_id uuid, link_id uuid) on commit drop")
        written = self.write_rows("pg_temp.staged", [*self.video_steps(), *self.name_steps()])
        fields = {target: (name, f"t.{name}") for name, target in self.values.items() if name in self.texts}
        self.reject_refused(written, "pg_temp.staged", fields | {"product_url": ("product_url", "t.product_url")})
        created = written.counts[0]
        self.summary.inserted += created
        self.summary.items_created += created
        items, updated = self.one(
            "select (select count(*) from pg_temp.matched), count(*) from"
            " (select from pg_temp.touched group by video_id having not bool_or(is_new)) as updated"
        )
        self.summary.items += items
        self.summary.updated += updated

    def video_steps(self) -> list[sql.Composed]:
        """Statements that insert and update the videos themselves."""
        targets = [self.values[name] for name in self.texts]
        columns = sql.SQL(", ").join(map(sql.Identifier, targets))
        # A title is never null; the other columns are what the file says.
        cells = sql.SQL(", ").join(
            sql.SQL("coalesce(s.title, '')" if name == "title" else f"s.{{}}::{self.columns_of_videos[target]}").format(
                sql.Identifier(name)
            )
            for name, target in zip(self.texts, targets, strict=True)
        )
        return [
            sql.SQL(
                "with created as ("
                " insert into public.videos (id, product_url, published_at, {columns})"
                " select {id}, s.product_url, now(), {cells} from pg_temp.staged s"
                " where s.line between v_from and v_to"
                " and not exists (select from public.videos v where v.product_url = s.product_url)"
                " order by s.line returning id"
                ") insert into pg_temp.touched select id, true from created"
            ).format(id=_new_id("videos", "video", "s.product_url"), columns=columns, cells=cells),
            sql.SQL(
                "insert into pg_temp.matched"
                " select distinct on (s.line) s.line, v.id"
                " from pg_temp.staged s join public.videos v using (product_url)"
                " where s.line between v_from and v_to order by s.line, v.id"
            ).format(),
            sql.SQL(_ANALYZE.format("pg_temp.matched")).format(),
            sql.SQL(
                "with changed as ("
                " update public.videos v set ({columns}) = row({cells})"
                " from pg_temp.staged s join pg_temp.matched m using (line)"
                " where s.line between v_from and v_to"
                " and v.id = m.video_id and row({current}) is distinct from row({cells}) returning v.id"
                ") insert into pg_temp.touched select id, false from changed"
            ).format(
                columns=columns,
                cells=cells,
                current=sql.SQL(", ").join(sql.SQL("v.{}").format(sql.Identifier(name)) for name in targets),
            ),
        ]

    def name_steps(self) -> list[sql.Composed]:
        """Statements that make the tags, and the performers, of the file's videos exactly those of the file."""
        steps: list[sql.Composed] = []
        for kind in self.present:
            names, links, link = self.lists[kind]
            parts = {
                "kind": sql.Literal(kind),
                "names": sql.Identifier("public", names),
                "links": sql.Identifier("public", links),
                "link": sql.Identifier(link),
                # The table says which names are the same.
                "name": sql.SQL("n.name::" + self.types(f"public.{names}")["name"]),
                "id": _new_id(names, kind, "min(n.name)"),
                "scope": sql.SQL("n.line between v_from and v_to"),
            }
            steps += [
                sql.SQL(text).format(**parts)
                for text in (
                    "insert into {names} (id, name) select {id}, min(n.name)"
                    " from pg_temp.staged_names n join pg_temp.matched using (line) where n.kind = {kind} and {scope}"
                    " and not exists (select from {names} o where o.name = {name})"
                    " group by {name} order by min(n.line)",
                    "truncate pg_temp.wanted",
                    # An adopted table may hold a name twice: the lowest id stands for it.
                    "insert into pg_temp.wanted"
                    " select distinct m.video_id, o.id from pg_temp.staged_names n join pg_temp.matched m using (line)"
                    " join (select distinct on (name) name, id from {names} order by name, id) o on o.name = {name}"
                    " where n.kind = {kind} and {scope}",
                    _ANALYZE.format("pg_temp.wanted"),
                    "with removed as ("
                    " delete from {links} l using pg_temp.matched n"
                    " where {scope} and l.video_id = n.video_id and not exists"
                    " (select from pg_temp.wanted w where w.video_id = l.video_id and w.link_id = l.{link})"
                    " returning l.video_id"
                    ") insert into pg_temp.touched select distinct video_id, false from removed",
                    "with added as ("
                    " insert into {links} (video_id, {link}) select w.video_id, w.link_id from pg_temp.wanted w"
                    " where not exists (select from {links} l where l.video_id = w.video_id and l.{link} = w.link_id)"
                    " returning video_id"
                    ") insert into pg_temp.touched select distinct video_id, false from added",
                )
            ]
        return steps


# ---------------------------------------------------------------------------------------------- reviews and decisions

_SIZES = {"line": 8, "user": 16, "video": 16, "value": 4, "created": 8}
_TYPES = {"line": ">i8", "user": UUID_BYTES, "video": UUID_BYTES, "value": ">f4", "created": ">i8"}
_POSTGRES_EPOCH = 946_684_800_000_000
"""2000-01-01 in microseconds since 1970."""


def _binary_rows(columns: Mapping[str, Any]) -> bytes:
    """Rows in the format of binary COPY. ``columns`` are some of ``_SIZES``, in order. If there is ``created``, it is
    the last, in microseconds since 1970, and may have nulls."""
    fields = [pair for name in columns for pair in ((f"{name}_size", ">i4"), (name, _TYPES[name]))]
    rows = np.empty(len(columns["user"]), np.dtype([("fields", ">i2"), *fields]))
    rows["fields"] = len(columns)
    for name, values in columns.items():
        rows[f"{name}_size"] = _SIZES[name]
        rows[name] = values if name != "created" else values.fill_null(0) - _POSTGRES_EPOCH
    missing = columns["created"].is_null().to_numpy() if "created" in columns else None
    if missing is not None and missing.any():
        rows["created_size"][missing] = -1
        data = rows.view(np.uint8).reshape(len(rows), rows.itemsize)
        keep = np.ones_like(data, bool)
        keep[missing, -_SIZES["created"] :] = False
        return data[keep].tobytes()
    return rows.tobytes()


class _Distinct:
    """Counts distinct values among 64-bit hashes. Memory: 8 bytes per distinct value, and 32 MB."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []
        self.held = 0

    def add(self, hashes: np.ndarray) -> None:
        self.parts.append(np.unique(hashes))
        self.held += len(self.parts[-1])
        if self.held > 2 * len(self.parts[0]) + (1 << 22):
            self.held = self.count()

    def count(self) -> int:
        self.parts = [np.unique(np.concatenate(self.parts))] if self.parts else []
        return sum(map(len, self.parts))


class _Repeats:
    """A Bloom filter: tells which 64-bit hashes came before, and takes a few new ones for old: one in two thousand over
    ten million, one in thirty over a hundred million. Memory: 64 MB."""

    multipliers = (1, 0x9FB21C651E98DF25)

    def __init__(self) -> None:
        self.bits = np.zeros(1 << 26, np.uint8)

    def among(self, hashes: np.ndarray) -> np.ndarray:
        """Whether each came before, earlier calls included; remembers them."""
        repeated = np.ones(len(hashes), bool)
        for multiplier in self.multipliers:
            place = hashes * np.uint64(multiplier) >> np.uint64(35)
            byte, bit = place >> np.uint64(3), np.left_shift(1, place & np.uint64(7)).astype(np.uint8)
            repeated &= self.bits[byte] & bit > 0
            np.bitwise_or.at(self.bits, byte, bit)
        new = np.ones(len(hashes), bool)
        new[np.unique(hashes, return_index=True)[1]] = False
        return repeated | new


def _hash(values: np.ndarray) -> np.ndarray:
    """64-bit hashes of UUIDs: two odd multipliers, and a third that spreads the result to the upper bits."""
    halves = values.view(np.uint64).reshape(-1, 2)
    mixed = halves[:, 0] * np.uint64(0x9E3779B97F4A7C15) ^ halves[:, 1] * np.uint64(0xC2B2AE3D27D4EB4F)
    return (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)


class _Feedback(_Kind):
    """What somebody thinks of a video, as a number."""

    user_column: LiteralString
    """Of the table that it goes to."""
    value_column: LiteralString
    shown: LiteralString
    """SQL of a value as the report of rejects shows it, from a row ``t``."""

    def __init__(self, task: _Import, cursor: psycopg.Cursor[Any], columns: list[str]) -> None:
        super().__init__(task, cursor, columns)
        self.item, self.user, self.label = self.order(columns)
        (self.latest,) = self.one("select (now() at time zone 'utc') + interval '1 day'")
        """Clocks differ, by time zones that a file does not name too."""
        cursor.execute("drop table if exists pg_temp.staged")
        cursor.execute(
            "create temp table staged (line bigint, user_id uuid, video_id uuid, value real, created_at timestamptz)"
            " on commit drop"
        )
        self.videos = pl.DataFrame(schema={"item": pl.String, "video": pl.UInt32})
        self.video_ids = np.empty(0, UUID_BYTES)
        self.seen = np.empty(0, bool)
        """Of ``video_ids``, those that a row is about."""
        self.sending: Future[None] | None = None
        query = sql.SQL(
            "copy (select distinct on ({key}) {key}, id from public.videos where {key} is not null order by {key}, id)"
            " to stdout (format csv)"
        ).format(key=sql.Identifier("id" if self.item == "video_id" else "product_url"))
        with cursor.copy(query) as copy:
            data = b"".join(copy)
        if data:
            known = pl.read_csv(data, has_header=False, schema={"item": pl.String, "id": pl.String})
            self.know(known["item"], known["id"])
            links = known.filter(pl.col("item").str.contains(_LINK))
            led = links.with_columns(pl.Series("item", [_leads_to(link) for link in links["item"]], pl.String))
            led = led.unique("item", keep="first", maintain_order=True)
            led = led.join(known, on="item", how="anti", maintain_order="left")
            self.know(led["item"], led["id"])

    @staticmethod
    @abstractmethod
    def order(columns: list[str]) -> tuple[str, str, str]:
        """The columns of item, user and label."""

    @abstractmethod
    def values(self, label: pl.Series) -> tuple[pl.Series, str]:
        """The numbers that labels stand for, null where they stand for none, and the reason to reject those."""

    @staticmethod
    def word(value: float) -> str:
        """What a number stands for."""
        return f"{value:g}"

    def know(self, items: pl.Series, ids: pl.Series) -> None:
        """Adds videos to those that can be referred to."""
        start = len(self.videos)
        at = pl.int_range(start, start + len(items), dtype=pl.UInt32, eager=True)
        self.videos = pl.concat([self.videos, pl.DataFrame({"item": items, "video": at})])
        self.video_ids = np.concatenate([self.video_ids, uuid_bytes(ids)])
        self.seen = np.concatenate([self.seen, np.zeros(len(ids), bool)])

    def stage(self, batch: pl.DataFrame) -> None:
        named = pl.col(self.item, self.user).cast(pl.String).str.strip_chars()
        batch = batch.with_columns(named)
        if self.item == "video_id":
            batch = batch.with_columns(pl.col("video_id").str.to_lowercase())
        values, reason = self.values(batch[self.label])
        batch = batch.with_columns(values.alias("value")).join(
            self.videos, left_on=self.item, right_on="item", how="left", maintain_order="left"
        )
        self.task.joined += len(batch) - batch["video"].null_count()
        if self.task.options.unknown == "create" and self.item == "product_url":
            batch = self.create_videos(batch)
        item, user = pl.col(self.item), pl.col(self.user)
        faults = [
            (self.item, item.is_null() | (item == ""), "empty"),
            (self.user, user.is_null() | (user == ""), "empty"),
            (self.label, pl.col("value").is_null(), reason),
        ]
        if self.item == "video_id":
            faults.append((self.item, ~item.str.contains(UUID_PATTERN), "not a UUID"))
        faults.append((self.item, pl.col("video").is_null(), "unknown product"))
        if "created_at" in batch.columns:
            batch = batch.with_columns(_timestamps(batch["created_at"]).alias("created"))
            bad = pl.col("created_at").is_not_null() & pl.col("created").is_null()
            faults.append(("created_at", bad, "not a time that reads one way only, such as 2025-01-31T12:00:00Z"))
            faults.append(
                ("created_at", _outside("created", _FIRST_MOMENT, self.latest), "not a time from 1970 to now")
            )
        self.pack(self.known_users(self.task.reject(batch, faults)))

    def known_users(self, batch: pl.DataFrame) -> pl.DataFrame:
        """The rows whose user may have them."""
        return batch

    def create_videos(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Inserts the products that the catalogue lacks, with nothing but their address."""
        good = pl.col("video").is_null() & pl.col("value").is_not_null() & (pl.col(self.item) != "")
        unknown = batch.filter(good)[self.item].unique(maintain_order=True)
        if len(unknown) == 0:
            return batch
        self.settle()
        self.lock_catalogue()
        self.cursor.execute("drop table if exists pg_temp.unknown")
        self.cursor.execute("create temp table unknown (line bigint, url text) on commit drop")
        first = batch.filter(good).unique(self.item, keep="first", maintain_order=True)
        self.copy("pg_temp.unknown", first.select("line", self.item))
        written = self.write_rows(
            "pg_temp.unknown",
            [
                sql.SQL(
                    "insert into public.videos (id, product_url, title, published_at)"
                    " select {}, s.url, '', now() from pg_temp.unknown s where s.line between v_from and v_to"
                    " and not exists (select from public.videos v where v.product_url = s.url) order by s.line"
                ).format(_new_id("videos", "video", "s.url"))
            ],
        )
        self.summary.items_created += written.counts[0]
        if len(written.refused):
            reasons = first.join(written.refused, on="line").select(self.item, "reason")
            bad = batch.filter(good).join(reasons, on=self.item, maintain_order="left")
            for (reason,), lines in bad.group_by("reason", maintain_order=True):
                rows_of_it = lines.select("line", pl.col(self.item).alias("value"))
                self.task.rejects.add_rows(rows_of_it, self.item, f"refused by the database: {reason}")
            batch = batch.filter(~pl.col("line").is_in(bad["line"].implode()))
        rows = self.cursor.execute(
            "select distinct on (product_url) product_url, id::text from public.videos where product_url = any (%s)"
            " order by product_url, id",
            [unknown.to_list()],
        ).fetchall()
        if rows:
            self.know(*(pl.Series(column, dtype=pl.String) for column in zip(*rows, strict=True)))
        return batch.drop("video").join(
            self.videos, left_on=self.item, right_on="item", how="left", maintain_order="left"
        )

    def pack(self, batch: pl.DataFrame) -> None:
        """Copies the rows to where they go first."""
        if len(batch) == 0:
            return
        videos = batch["video"].to_numpy()
        self.seen[videos] = True
        moments = (
            batch["created"].dt.epoch("us")
            if "created" in batch.columns
            else pl.Series([None], dtype=pl.Int64).new_from_index(0, len(batch))
        )
        users = user_uuids(batch[self.user])
        self.task.users.add(_hash(users))
        for value, rows in batch.select((pl.col("value") * 2).round() / 2).to_series().value_counts().iter_rows():
            name = self.word(value)
            self.summary.distribution[name] = self.summary.distribution.get(name, 0) + rows
        values = {"user": users, "video": self.video_ids[videos], "value": batch["value"], "created": moments}
        self.settle()
        self.sending = self.task.sender.submit(self.write, batch["line"], values)

    def settle(self) -> None:
        if self.sending:
            self.sending.result()

    def write(self, lines: pl.Series, values: Mapping[str, Any]) -> None:
        """Copies rows into the temporary table."""
        self.copy_binary("pg_temp.staged", {"line": lines, **values})

    def copy_binary(self, table: LiteralString, columns: Mapping[str, Any]) -> None:
        """Copies ``columns``, as ``_binary_rows`` takes them, into a table."""
        with self.cursor.copy(sql.SQL("copy {} from stdin (format binary)").format(sql.SQL(table))) as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8) + _binary_rows(columns) + b"\xff\xff")

    def find_changes(self, table: LiteralString, user: LiteralString, differs: LiteralString) -> None:
        """Fills ``changes`` with the last row of each user and video, if ``table`` (``t``) lacks it or ``differs``."""
        self.cursor.execute("analyze pg_temp.staged")
        self.cursor.execute("drop table if exists pg_temp.changes")
        self.cursor.execute(
            "create temp table changes"
            " (line bigint, user_id uuid, video_id uuid, value real, created_at timestamptz, is_new boolean)"
            " on commit drop"
        )
        query = sql.SQL(
            "with latest as materialized ("
            " select distinct on (user_id, video_id) line, user_id, video_id, value, created_at"
            " from pg_temp.staged order by user_id, video_id, line desc"
            "), found as ("
            " insert into pg_temp.changes select l.*, t.video_id is null"
            " from latest l left join {table} t on t.{user} = l.user_id and t.video_id = l.video_id"
            " where t.video_id is null or {differs}"
            ") select (select count(*) from pg_temp.staged) - (select count(*) from latest)"
        ).format(table=sql.SQL(table), user=sql.SQL(user), differs=sql.SQL(differs))
        (duplicates,) = self.one(query)
        self.summary.duplicates += duplicates
        self.cursor.execute("drop table pg_temp.staged")
        self.cursor.execute("analyze pg_temp.changes")

    def write_changes(self, steps: Sequence[LiteralString | sql.Composed]) -> list[int]:
        """Writes ``changes``: the last two steps update and insert; what the steps before them wrote."""
        written = self.write_rows("pg_temp.changes", steps)
        *others, updated, inserted = written.counts
        self.summary.updated += updated
        self.summary.inserted += inserted
        if len(written.refused):
            for value, rows in self.cursor.execute(
                "select round(c.value * 2) / 2, count(*)"
                " from pg_temp.changes c join pg_temp.refused r using (line) group by 1"
            ).fetchall():
                self.summary.distribution[self.word(value)] -= rows
        fields = {"video_id": (self.item, "t.video_id"), self.user_column: (self.user, "t.user_id")}
        fields |= {self.value_column: (self.label, self.shown), "created_at": ("created_at", "t.created_at")}
        self.reject_refused(written, "pg_temp.changes", fields)
        return others

    def count_distinct(self) -> None:
        self.task.items.add(_hash(self.video_ids[self.seen]))


class _Reviews(_Feedback):
    name = "reviews"
    analyze = "analyze two_tower.reviews"
    required = (("product_url",), ("reviewer_id",), ("stars",))
    optional = ("created_at",)
    user_column = "reviewer_id"
    value_column = "stars"
    shown = "t.value"

    def __init__(self, task: _Import, cursor: psycopg.Cursor[Any], columns: list[str]) -> None:
        super().__init__(task, cursor, columns)
        self.indexes: list[str] = []
        self.repeats = _Repeats()
        self.copied = 0
        self.direct = self.claim_empty_table()

    @staticmethod
    def order(columns: list[str]) -> tuple[str, str, str]:
        return columns[0], columns[1], columns[2]

    def values(self, label: pl.Series) -> tuple[pl.Series, str]:
        stars = _number(label)
        return stars.set(~stars.is_between(0, 5).fill_null(value=False), None), "not a number from 0 to 5"

    def claim_empty_table(self) -> bool:
        """Takes an empty table for this import alone, without its indexes, if the role may.

        The first import is the largest. Rows that go straight to their table, which is indexed once they are in, take
        a fifth of the time of rows that are staged, sorted and inserted; checking the foreign key once for all takes
        a twentieth of the time of checking each row. Nobody misses an empty table meanwhile.
        """
        may = (
            "select pg_has_role(relowner, 'usage') and has_parameter_privilege('session_replication_role', 'set')"
            " and not exists (select from two_tower.reviews) from pg_class where oid = 'two_tower.reviews'::regclass"
        )
        if not self.one(may)[0]:
            return False
        self.cursor.execute("lock table two_tower.reviews in access exclusive mode")
        if not self.one(may)[0]:
            return False
        # A new file of a table is filled from its start to its end, so that the order of ctid is that of the rows.
        self.cursor.execute("truncate two_tower.reviews")
        self.cursor.execute("drop table if exists pg_temp.repeated")
        self.cursor.execute("create temp table repeated (reviewer_id uuid, video_id uuid) on commit drop")
        found = self.cursor.execute(
            "select c.conname, i.indexrelid::regclass::text, coalesce('alter table two_tower.reviews add constraint '"
            " || quote_ident(c.conname) || ' ' || pg_get_constraintdef(c.oid), pg_get_indexdef(i.indexrelid))"
            " from pg_index i left join pg_constraint c on c.conindid = i.indexrelid and c.conrelid = i.indrelid"
            " where i.indrelid = 'two_tower.reviews'::regclass order by c.conname"
        ).fetchall()
        for constraint, index, definition in found:
            drop = "alter table two_tower.reviews drop constraint {}" if constraint else "drop index {}"
            self.cursor.execute(sql.SQL(drop).format(sql.Identifier(constraint) if constraint else sql.SQL(index)))
            self.indexes.append(definition)
        return True

    def write(self, lines: pl.Series, values: Mapping[str, Any]) -> None:
        if not self.direct:
            super().write(lines, values)
            return
        self.cursor.execute("set local session_replication_role = replica")  # no check of the foreign key
        self.copy_binary("two_tower.reviews (reviewer_id, video_id, stars, created_at)", values)
        self.cursor.execute("set local session_replication_role = origin")
        self.copied += len(lines)
        repeated = self.repeats.among(_hash(values["user"]) + 3 * _hash(values["video"]))
        if repeated.any():
            self.copy_binary("pg_temp.repeated", {name: values[name][repeated] for name in ("user", "video")})

    def merge(self) -> None:
        if self.direct:
            self.finish_table()
        else:
            self.merge_staged()

    def finish_table(self) -> None:
        """Gives the table, which has the rows already, its indexes and its constraints back."""
        self.cursor.execute("set local maintenance_work_mem = '256MB'")
        self.cursor.execute("analyze pg_temp.repeated")
        self.cursor.execute("drop table if exists pg_temp.suspects")
        self.cursor.execute(
            "create temp table suspects on commit drop as"
            " select ctid as place, reviewer_id, video_id from two_tower.reviews"
            " where (reviewer_id, video_id) in (select reviewer_id, video_id from pg_temp.repeated)"
        )
        duplicates = self.count(
            "delete from two_tower.reviews where ctid = any (array("
            " select place from (select place, row_number() over"
            " (partition by reviewer_id, video_id order by place desc) as n from pg_temp.suspects) as numbered"
            " where n > 1))"
        )
        for definition in self.indexes:
            self.cursor.execute(definition)
        # A video that was deleted meanwhile takes its reviews along; none can go from here on.
        self.cursor.execute("lock table public.videos in share mode")
        orphans = 0
        videos = [UUID(bytes=video) for video in self.video_ids[self.seen].tolist()]
        gone = self.cursor.execute(
            "select array_agg(s.video) from unnest(%s::uuid[]) s (video)"
            " where not exists (select from public.videos v where v.id = s.video) having count(*) > 0",
            [videos],
        ).fetchone()
        if gone:
            orphans = self.cursor.execute("delete from two_tower.reviews where video_id = any (%s)", gone).rowcount
        self.cursor.execute("analyze two_tower.reviews")
        self.summary.duplicates += duplicates
        self.summary.inserted += self.copied - duplicates - orphans

    def merge_staged(self) -> None:
        self.find_changes(
            "two_tower.reviews",
            "reviewer_id",
            "t.stars <> l.value or t.created_at is distinct from coalesce(l.created_at, t.created_at)",
        )
        # Whoever may not read users leaves them to finish(), which writes such rows twice.
        (reads,) = self.one(
            "select coalesce(bool_or("
            "has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select')), false)"
            " from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname = 'auth' and c.relname = 'users'"
        )
        user = "(select u.id from auth.users u where u.id = l.user_id)" if reads else "null"
        self.write_changes(
            [
                "update two_tower.reviews r set stars = l.value, created_at = coalesce(l.created_at, r.created_at)"
                " from pg_temp.changes l where l.line between v_from and v_to"
                " and not l.is_new and r.reviewer_id = l.user_id and r.video_id = l.video_id",
                sql.SQL(
                    "insert into two_tower.reviews (reviewer_id, video_id, stars, created_at, user_id)"
                    " select l.user_id, l.video_id, l.value, l.created_at, {}::uuid from pg_temp.changes l"
                    " where l.line between v_from and v_to and l.is_new order by l.user_id, l.video_id"
                ).format(sql.SQL(user)),
            ]
        )

    def finish(self) -> None:
        self.cursor.execute("select two_tower.link_reviewers()")


class _Decisions(_Feedback):
    name = "decisions"
    analyze = "analyze public.user_video_decisions"
    required = (("user_id", "reviewer_id"), ("product_url", "video_id"), ("decision", "label"))
    optional = ("created_at",)
    user_column = "user_id"
    value_column = "decision_type"
    shown = "case t.value when 1 then 'like' when 0 then 'nope' else 'skip' end"
    labels: Mapping[str, float] = {
        "like": 1,
        "1": 1,
        "true": 1,
        "nope": 0,
        "dislike": 0,
        "0": 0,
        "false": 0,
        "skip": -1,
    }

    def __init__(
        self, task: _Import, cursor: psycopg.Cursor[Any], columns: list[str], *, create_users: bool = False
    ) -> None:
        super().__init__(task, cursor, columns)
        keys = cursor.execute(
            "select 1 from pg_catalog.pg_index i"
            " where i.indrelid = 'public.user_video_decisions'::regclass and i.indisunique and i.indisvalid"
            " and i.indpred is null and i.indexprs is null and not exists ("
            " select from unnest(i.indkey[0 : i.indnkeyatts - 1]) k (attnum)"
            " join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum"
            " where a.attname not in ('user_id', 'video_id'))"
        ).fetchone()
        if keys is None:
            raise UserError(
                f"{self.summary.source}: {task.done()}: public.user_video_decisions has no unique key of user_id and"
                " video_id, so a user may have decided twice on a video",
                "alter table public.user_video_decisions add unique (user_id, video_id)",
            )
        self.create_users = create_users
        if create_users:
            self.new_users = self.users_to_create()

    def users_to_create(self) -> sql.Composed:
        """The statement that creates the users of some changes, tried once. UserError where it cannot work."""
        found = self.cursor.execute(
            "select attname, attnotnull and not atthasdef and attidentity = '' from pg_catalog.pg_attribute"
            " where attrelid = 'auth.users'::regclass and attnum > 0 and not attisdropped and attgenerated = ''"
        ).fetchall()
        unknown = [name for name, needed in found if needed and name not in _NEW_USER]
        nothing = f"{self.summary.source}: {self.task.done()}"
        if unknown:
            raise UserError(
                f"{nothing}: auth.users wants {', '.join(sorted(unknown))}, of which an import knows nothing",
                "give the column a default, or create the users in the application and import without --create-users",
            )
        values = {name: _NEW_USER[name] for name, _ in found if name in _NEW_USER}
        statement = sql.SQL(
            "insert into auth.users ({columns}) select {values} from ("
            "select distinct l.user_id from pg_temp.changes l where l.line between v_from and v_to and l.is_new"
            " and not exists (select from auth.users u where u.id = l.user_id) order by l.user_id) n"
        ).format(
            columns=sql.SQL(", ").join(map(sql.Identifier, values)),
            values=sql.SQL(", ").join(map(sql.SQL, values.values())),
        )
        if self.task.chunks == 0:
            self.try_to_create(values, nothing)
        return statement

    def try_to_create(self, values: Mapping[str, LiteralString], nothing: str) -> None:
        """Creates a user and takes it back, and says which triggers it wakes."""
        woken = self.cursor.execute(
            "select t.tgname, p.pronamespace::regnamespace::text || '.' || p.proname"
            " from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid"
            " where t.tgrelid = 'auth.users'::regclass and not t.tgisinternal and t.tgenabled in ('O', 'A')"
            " and t.tgtype & 4 > 0 and p.pronamespace <> 'two_tower'::regnamespace order by t.tgname"
        ).fetchall()
        names = ", ".join(f"{name} ({routine})" for name, routine in woken)
        if woken:
            self.task.options.say(f"auth.users has triggers, which fire for every user that is created: {names}")
        query = sql.SQL("insert into auth.users ({}) select {} from (select gen_random_uuid() as user_id) n").format(
            sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join(map(sql.SQL, values.values()))
        )
        remedy = "create the users in the application, and import without --create-users"
        if woken:
            remedy = f"let what the triggers call, {names}, accept users without an e-mail address; or {remedy}"
        try:
            with self.cursor.connection.transaction(force_rollback=True):
                created = self.cursor.execute(query).rowcount
        except psycopg.errors.InsufficientPrivilege as error:
            raise UserError(
                f"{nothing}: auth.users takes no new users from this role: {error.diag.message_primary}",
                "import as a role that may insert into auth.users, such as postgres on Supabase; or " + remedy,
            ) from error
        except (psycopg.IntegrityError, psycopg.DataError, psycopg.ProgrammingError, psycopg.InternalError) as error:
            raise UserError(
                f"{nothing}: auth.users takes no new users: {error.diag.message_primary}", remedy
            ) from error
        if created == 0:
            raise UserError(f"{nothing}: auth.users takes no new users, and does not say why", remedy)

    @staticmethod
    def order(columns: list[str]) -> tuple[str, str, str]:
        return columns[1], columns[0], columns[2]

    def values(self, label: pl.Series) -> tuple[pl.Series, str]:
        words = label.cast(pl.String).str.strip_chars().str.to_lowercase().str.strip_suffix(".0")
        known = words.replace_strict(self.labels, default=None, return_dtype=pl.Float32)
        return known, "not a decision: like, nope, dislike, skip, 1 or 0"

    @staticmethod
    def word(value: float) -> str:
        return {1.0: "like", 0.0: "nope"}.get(value, "skip")

    def known_users(self, batch: pl.DataFrame) -> pl.DataFrame:
        if self.create_users or len(batch) == 0:
            return batch
        ids = batch.select(pl.col(self.user)).unique(maintain_order=True)
        raw = user_uuids(ids[self.user])
        self.settle()
        unknown = self.cursor.execute(
            "select u.at from unnest(%b::uuid[]) with ordinality u (id, at)"
            " where not exists (select from auth.users where id = u.id)",
            [[UUID(bytes=value) for value in raw.tolist()]],
        ).fetchall()
        strangers = ids[[at - 1 for (at,) in unknown]][self.user] if unknown else pl.Series([], dtype=pl.String)
        return self.task.reject(batch, [(self.user, pl.col(self.user).is_in(strangers.implode()), "unknown user")])

    def merge(self) -> None:
        # Compared as text and cast as it is written: the column may be of an enum or a domain of the application's.
        word = "(case l.value when 1 then 'like' when 0 then 'nope' else 'skip' end)::text"
        types = self.types("public.user_video_decisions")
        moment = f"l.created_at::{types['created_at']}"
        parts = {"decision": sql.SQL(f"{word}::{types['decision_type']}"), "moment": sql.SQL(moment)}
        self.find_changes(
            "public.user_video_decisions",
            "user_id",
            # As SQL reads it: LIKE is like, and stays as it is written.
            "two_tower.decision_label(t.decision_type) is distinct from l.value::int"
            f" or t.created_at is distinct from coalesce({moment}, t.created_at)",
        )
        steps = [
            sql.SQL(
                "update public.user_video_decisions d"
                " set decision_type = {decision}, created_at = coalesce({moment}, d.created_at)"
                " from pg_temp.changes l where l.line between v_from and v_to"
                " and not l.is_new and d.user_id = l.user_id and d.video_id = l.video_id"
            ).format(**parts),
            sql.SQL(
                "insert into public.user_video_decisions (user_id, video_id, decision_type, created_at)"
                " select l.user_id, l.video_id, {decision}, coalesce({moment}, now()) from pg_temp.changes l"
                " where l.line between v_from and v_to and l.is_new order by l.user_id, l.video_id"
            ).format(**parts),
        ]
        self.summary.users_created += sum(self.write_changes([self.new_users, *steps] if self.create_users else steps))

    def finish(self) -> None:
        if self.create_users:
            self.cursor.execute("select two_tower.link_reviewers()")


_NEW_USER: Mapping[str, LiteralString] = {
    "id": "n.user_id",
    "instance_id": "'00000000-0000-0000-0000-000000000000'::uuid",
    "aud": "'authenticated'",
    "role": "'authenticated'",
    "encrypted_password": "''",
    "confirmation_token": "''",
    "recovery_token": "''",
    "email_change_token": "''",
    "email_change_token_new": "''",
    "email_change_token_current": "''",
    "email_change": "''",
    "email_change_confirm_status": "0",
    "phone_change": "''",
    "phone_change_token": "''",
    "reauthentication_token": "''",
    "raw_app_meta_data": "'{}'",
    "raw_user_meta_data": "'{}'",
    "is_sso_user": "false",
    "is_anonymous": "false",
    "created_at": "now()",
    "updated_at": "now()",
}
"""What Supabase's sign-in writes for a user without an e-mail address (github.com/supabase/auth,
internal/models/user.go). It reads none of these as null: a text that is null fails every listing of users. Not
anonymous, because projects are told to delete anonymous users after a while."""


# ---------------------------------------------------------------------------------------------------- cells to values


_PRICES = (1e-6, 1e12)
"""What is smaller, save 0, or larger, no sum of prices can hold beside others."""
# In UTC and without zone, as _timestamps has them.
_CALENDAR = (datetime(1, 1, 2), datetime(9999, 12, 30))
_RELEASES = (datetime(1850, 1, 1), datetime(2200, 1, 1))
_FIRST_MOMENT = datetime(1970, 1, 1)


def _outside(column: str, first: datetime, last: datetime) -> pl.Expr:
    """Whether a time is there and not from ``first`` to before ``last``."""
    return ~pl.col(column).is_between(first, last, closed="left").fill_null(value=True)


def _number(cells: pl.Series) -> pl.Series:
    """Finite numbers as Float64, null where a cell holds none."""
    if cells.dtype == pl.String:
        cells = cells.str.strip_chars()
    numbers = cells.cast(pl.Float64, strict=False)
    return numbers.set(~numbers.is_finite().fill_null(value=False), None)


def _shown(cells: pl.Series) -> pl.Series:
    """Cells as text, for the report; of times beyond what a calendar has, the number that the file holds."""
    if isinstance(cells.dtype, pl.List):
        return pl.Series(cells.name, [""], dtype=pl.String).new_from_index(0, len(cells))
    if not isinstance(cells.dtype, pl.Datetime | pl.Date):
        return cells.cast(pl.String)
    per_second = 1 / 86_400
    if isinstance(cells.dtype, pl.Datetime):
        per_second = {"ms": 10**3, "us": 10**6, "ns": 10**9}[cells.dtype.time_unit]
    seconds = cells.to_physical().cast(pl.Float64) / per_second
    first, last = (moment.replace(tzinfo=UTC).timestamp() for moment in _CALENDAR)
    inside = seconds.is_between(first, last).fill_null(value=False)
    return cells.set(~inside, None).cast(pl.String).zip_with(inside, cells.to_physical().cast(pl.String))


_LARGEST_MS = 2**63 // 1_000 - 1
_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f %#z",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d %H:%M%#z",
    "%Y%m%d",
    "%d.%m.%Y",
)


def _timestamps(cells: pl.Series) -> pl.Series:
    """Moments in UTC as Datetime('us') without zone; null where a cell holds none, or a year outside 1000 to 9999.

    Text may be ISO 8601 with a space or slashes, with or without a time, zone or fraction; 20250131; 31.01.2025; or
    seconds (10 digits) or milliseconds (13) since 1970. Without a zone it is UTC.
    """
    naive = pl.Datetime("us")
    if isinstance(cells.dtype, pl.Datetime):
        moments = cells.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if cells.dtype.time_zone else cells
        if moments.dtype.time_unit == "ms":  # type: ignore[attr-defined]
            moments = moments.set(moments.dt.epoch("ms").abs() > _LARGEST_MS, None)  # would wrap around in microseconds
        return moments.cast(naive)
    if cells.dtype != pl.String:
        return cells.cast(naive, strict=False) if cells.dtype == pl.Date else cells.clear(len(cells)).cast(naive)
    moments = cells.str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", strict=False)
    left = cells.filter(moments.is_null() & cells.is_not_null()).unique()
    if len(left) == 0:
        return moments
    text = left.str.strip_chars().str.replace_all("/", "-", literal=True)
    text = text.str.replace(r"^(\d{4}-\d\d-\d\d)T", "${1} ").str.replace(r" ?(Z|UTC)$", "+00:00")
    parsed = pl.Series([None], dtype=naive).new_from_index(0, len(left))
    for form in _FORMATS:
        found = text.str.to_datetime(form, time_unit="us", strict=False).dt.replace_time_zone(None)
        parsed = parsed.zip_with(parsed.is_not_null(), found)
    seconds = text.cast(pl.Int64, strict=False)
    length = text.str.len_bytes()
    for digits, factor in ((10, 1_000_000), (13, 1_000)):
        found = (seconds.set(length != digits, None) * factor).cast(naive)
        parsed = parsed.zip_with(parsed.is_not_null(), found)
    parsed = parsed.set(~parsed.dt.year().is_between(1000, 9999).fill_null(value=False), None)
    return moments.zip_with(moments.is_not_null(), cells.replace_strict(left, parsed, default=None, return_dtype=naive))


def _new_id(table: LiteralString, kind: str, name: LiteralString) -> sql.Composed:
    """SQL of the id that ``name`` has in every database; a random one where something of another name has taken it."""
    parts = {"table": sql.Identifier("public", table), "kind": sql.Literal(kind), "name": sql.SQL(name)}
    return sql.SQL(
        "case when exists (select from {table} o where o.id = two_tower.named_id({kind}, {name}))"
        " then gen_random_uuid() else two_tower.named_id({kind}, {name}) end"
    ).format(**parts)
