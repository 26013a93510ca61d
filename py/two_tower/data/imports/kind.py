"""The content of one kind of file, its merge, and the handling of rows that a table refuses."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, LiteralString
from urllib.parse import parse_qs, urlsplit

import polars as pl
import psycopg
from psycopg import sql

from two_tower.data.addresses import normaliser
from two_tower.database import take_turn
from two_tower.ids import INVISIBLE

if TYPE_CHECKING:
    from two_tower.data.imports.task import Import

ANALYZE: LiteralString = "if v_to - v_from > 1000 then analyze {}; end if"
"""A step that updates statistics, so that later steps are planned for the table's content, except for few rows."""


DEADLOCKS = 5
"""Attempts to write rows before a deadlock with the application fails the import."""


@dataclass(frozen=True)
class Written:
    """The result of writing rows."""

    counts: list[int]
    """Rows that each step wrote."""
    refused: pl.DataFrame
    """``line``, ``field`` (null if the database names none) and ``reason`` of the rows that it refused."""


# Halves are on a stack, so that lines come in order. The index is created only when it is needed. Classes of errors
# that are raised: connections, transactions, rights and definitions, resources, limits, states and locks, the operator,
# the system, the server itself. But 54000 is a value that is too long for an index or for a full-text vector.
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
    v_again bigint[] := '{{}}';
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
            if left(sqlstate, 2) in ('08', '25', '40', '42', '53', '54', '55', '57', '58', 'XX')
                and sqlstate <> '54000'
            then
                raise;
            elsif sqlstate = '23505' and v_again <> array[v_from, v_to] then
                -- Another session may have inserted it meanwhile: try again, in a snapshot that has it.
                v_again := array[v_from, v_to];
                v_starts := v_starts || v_from;
                v_ends := v_ends || v_to;
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


class Kind(ABC):
    """The content of one kind of file, and its merge."""

    name: str
    analyze: LiteralString
    """Statement that gathers statistics of the tables that this kind fills."""
    required: tuple[tuple[str, ...], ...]
    """Required columns, as groups of alternatives."""
    optional: tuple[str, ...] = ()
    lists: ClassVar[Iterable[str]] = ()
    """Columns with several values in a cell."""
    refers_to_products: ClassVar[bool] = False
    """Whether its rows are from users and about products of the catalogue."""

    def __init__(self, task: Import, cursor: psycopg.Cursor[Any], columns: list[str]) -> None:
        self.task = task
        self.summary = task.summary
        self.cursor = cursor
        self.columns = columns
        (urls,) = self.one(
            "select coalesce((select value #>> '{}' from two_tower.settings where name = 'product_urls'), 'as_written')"
        )
        self.normalise = normaliser(urls)
        """Normalises addresses of products; None keeps them as they are."""

    @staticmethod  # noqa: B027 - most kinds learn nothing from it
    def look(task: Import, batch: pl.DataFrame) -> None:
        """Inspects a batch that was just read, before any of it is staged."""

    @abstractmethod
    def stage(self, batch: pl.DataFrame) -> None:
        """Checks a batch and copies it into the temporary table."""

    @abstractmethod
    def merge(self) -> None:
        """Merges the temporary table, and completes the summary."""

    def settle(self) -> None:  # noqa: B027 - not every kind has anything to wait for
        """Waits until the connection is free."""

    def count_distinct(self) -> None:  # noqa: B027 - most kinds count as they merge
        """Counts users and items of the file, unless the merge has counted them."""

    def finish(self) -> None:  # noqa: B027 - most kinds have nothing to do once
        """Does the work that is needed once, in the file's last transaction."""

    def write_rows(self, table: LiteralString, steps: Sequence[LiteralString | sql.Composed]) -> Written:
        """Runs ``steps`` on all rows of ``table``; if one fails, on halves of them, down to single refused rows.

        Each step is a statement about the rows whose ``line`` is between ``v_from`` and ``v_to``; together they succeed
        or are undone. Errors that are not caused by a row, such as a missing right or a lost lock, are raised. Others
        may write the same rows meanwhile: steps must check for existing rows, and a deadlock undoes all steps and
        their locks before they are repeated.
        """
        self.cursor.execute("drop table if exists pg_temp.refused")
        self.cursor.execute("create temp table refused (line bigint, field text, reason text) on commit drop")
        counted = sql.SQL(" ").join(
            sql.SQL("{}; get diagnostics v_rows = row_count; v_counts := v_counts || v_rows;").format(step)
            for step in (sql.SQL(step) if isinstance(step, str) else step for step in steps)
        )
        write = _WRITE_ROWS.format(table=sql.SQL(table), steps=counted, none=sql.SQL(str([0] * len(steps))))
        for left in reversed(range(DEADLOCKS)):
            try:
                with self.cursor.connection.transaction():
                    self.cursor.execute(write)
                break
            except psycopg.errors.DeadlockDetected:
                if not left:
                    raise
                time.sleep(0.5)  # the application goes first
        (counts,) = self.one("select current_setting('two_tower.import_counts')::bigint[]")
        refused = self.cursor.execute("select line, field, reason from pg_temp.refused order by line").fetchall()
        schema = {"line": pl.Int64, "field": pl.String, "reason": pl.String}
        return Written(counts, pl.DataFrame(refused, schema=schema, orient="row"))

    def reject_refused(self, written: Written, table: LiteralString, fields: Mapping[str, tuple[str, str]]) -> None:
        """Reports rows that the database refused. ``fields``: column of the database → that of the file, and an
        expression for its value in ``table`` (``t``)."""
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
        """Column → type. Numbers are compared after rounding; a text that is too long fails, and is not truncated."""
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

    def take_turns(self, what: LiteralString) -> None:
        """Waits for other imports into the same tables, and makes them wait until the transaction ends: otherwise they
        would wait for rows of each other, or repeat work."""
        take_turn(self.cursor.connection, what, "another import into the same tables", self.task.options.say)

    def copy(self, table: LiteralString, frame: pl.DataFrame) -> None:
        """Copies a frame into a table with the same columns in the same order. Times are in UTC."""
        with self.cursor.copy(sql.SQL("copy {} from stdin (format csv)").format(sql.SQL(table))) as copy:
            for part in frame.iter_slices(50_000):
                copy.write(part.write_csv(include_header=False, datetime_format="%Y-%m-%d %H:%M:%S%.6f+00"))


_LINK = "[?&]lurl=http"
"""Part of every affiliate link to a product."""
OTHERWISE_FOUND = f"{_LINK}|{INVISIBLE}"
"""Part of every stored address that files also have in another form, which :func:`leads_to` gives."""


def leads_to(stored: str) -> str:
    """The address by which files find a product: that to which an affiliate link leads, as it is seen."""
    address = parse_qs(urlsplit(stored).query)["lurl"][0] if re.search(_LINK, stored) else stored
    return re.sub(INVISIBLE, "", address)


def new_id(table: LiteralString, kind: str, name: LiteralString) -> sql.Composed:
    """SQL of the id that ``name`` has in every database; a random one if a row with another name has that id."""
    parts = {"table": sql.Identifier("public", table), "kind": sql.Literal(kind), "name": sql.SQL(name)}
    return sql.SQL(
        "case when exists (select from {table} o where o.id = two_tower.named_id({kind}, {name}))"
        " then gen_random_uuid() else two_tower.named_id({kind}, {name}) end"
    ).format(**parts)
