"""One pull, inside one transaction on each side."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import UUID

import polars as pl
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from two_tower.data.pull.pseudonyms import Pseudonyms
from two_tower.data.pull.summary import PullSummary, TableSummary
from two_tower.data.pull.tables import TABLES, TIME, USERS, WEIGHT, PulledTable
from two_tower.database import take_turn
from two_tower.errors import UserError
from two_tower.progress import Progress, Say
from two_tower.rows import one

Connection = psycopg.Connection[Any]

ROWS_PER_BUCKET = 64

_BLOCK = 256 << 10

_FILL = {"text": "''", "text[]": "'{}'", TIME: "timestamptz 'epoch'"}
"""Replacement for a null where a value is required, by type; always the same, or every pull would copy the row."""


@dataclass(frozen=True)
class Pair:
    """A table on both sides, with their common columns."""

    table: PulledTable
    columns: dict[str, str]
    """Column → type in which it is transferred."""
    theirs: sql.Composable
    """The relation to select from at the source."""
    target_types: dict[str, str]
    fill: dict[str, str]
    """Columns that must not be null here, each with the SQL that replaces a null there."""
    buckets: int
    """A power of two; 0 if a bucket is a user."""


class Run:
    """The steps of a pull, and their shared state."""

    def __init__(
        self,
        source: Connection,
        target: Connection,
        key: bytes | None,
        summary: PullSummary,
        say: Say,
        progress: Progress,
    ) -> None:
        self.source = source
        self.target = target
        self.pseudonyms = Pseudonyms(key) if key else None
        self.summary = summary
        self.say = say
        self.progress = progress

    def run(self, replace: bool) -> None:
        self.source.execute("set local row_security = off")  # an error instead of only some of the rows
        take_turn(self.target, "catalogue", "an import or another pull", self.say)
        pairs = self.pairs()
        scopes: dict[str, tuple[sql.Composable, sql.Composable]] = {}
        for at, pair in enumerate(pairs):
            self.progress(f"comparing {pair.table.relation}", at / len(pairs) / 3)
            scopes[pair.table.name] = self.compare(pair)
        for at, pair in enumerate(pairs):
            self.progress(f"copying {pair.table.relation}", (1 + at / len(pairs)) / 3)
            self.stage(pair, scopes[pair.table.name][0])
        self.progress("merging", 2 / 3)
        for pair in reversed(pairs):
            self.delete(pair, scopes[pair.table.name][1])
        self.require_right_to_delete(replace)
        for pair in pairs:
            self.merge(pair)
        self.target.execute("select two_tower.link_reviewers()")
        self.record()

    # ------------------------------------------------------------------------------------------------- tables

    def pairs(self) -> list[Pair]:
        """The tables that both sides have, with their common columns. UserError if the source lacks a required one."""
        theirs, ours = self.describe(self.source), self.describe(self.target)
        found, missing = [], []
        partial: dict[str, list[str]] = {}
        for table in TABLES:
            there, here = theirs.get(table.name, {}), ours.get(table.name, {})
            if not all(name in here for name in table.key):
                raise UserError("the database is not set up", "run `two-tower migrate`")
            lacks = [name for name in table.required if name not in there]
            missing += [f"{table.name}.{name}" for name in lacks]
            if lacks:
                continue
            relation: sql.Composable = table.identifier
            columns = {
                name: kind
                for name, kind in table.columns.items()
                if name in there
                and name in here
                # A list is copied if both sides have it as an array.
                and (not kind.endswith("[]") or {side[name]["type"][-2:] for side in (there, here)} == {"[]"})
            }
            if table.name == USERS and "id" not in there:
                relation = self.users_elsewhere(theirs)
                columns = {"id": "uuid"}
            elif any(name not in there for name in table.key):
                self.say(f"the source has no {table.name}, or this role may not read it: it is left as it is here")
                continue
            elif table.schema == "two_tower" and self.is_empty(table):
                continue  # keeps reviews that were imported here
            needed = [name for name in (*table.key, *table.needed) if name in columns]
            partial[table.name] = [name for name in needed if not there.get(name, {}).get("not_null")]
            rows = max((row["rows"] for row in there.values()), default=-1)
            buckets = 1 << max(4, int((rows if rows >= 0 else 1 << 18) // ROWS_PER_BUCKET).bit_length())
            found.append(
                Pair(
                    table,
                    columns,
                    relation,
                    {name: here[name]["type"] for name in columns},
                    {name: _FILL[kind] for name, kind in columns.items() if kind in _FILL and here[name]["not_null"]},
                    0 if self.pseudonyms and table.user else buckets,
                )
            )
        if missing:
            raise UserError(
                f"the source lacks, or this role may not read: {', '.join(missing)}",
                "use a role that may select from the application's tables",
            )
        return [
            replace(pair, theirs=self.whole_rows(pair, names)) if names or pair.table.longest else pair
            for pair in found
            for names in (partial[pair.table.name],)
        ]

    @staticmethod
    def describe(connection: Connection) -> dict[str, dict[str, dict[str, Any]]]:
        """Table → column → type, whether it must not be null, and the table's estimated rows (-1: never estimated)."""
        rows = connection.execute(
            "select n.nspname || '.' || c.relname, a.attname,"
            " format_type(a.atttypid, case t.typcategory when 'S' then -1 else a.atttypmod end),"
            " a.attnotnull, c.reltuples::bigint"
            " from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace"
            " join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped"
            " join pg_catalog.pg_type t on t.oid = a.atttypid"
            " where n.nspname || '.' || c.relname = any (%s) and c.relkind in ('r', 'p', 'v', 'm', 'f')"
            " and a.attgenerated = '' and has_schema_privilege(n.oid, 'usage')"
            " and has_column_privilege(c.oid, a.attnum, 'select')",
            [[table.name for table in TABLES]],
        ).fetchall()
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for table, column, kind, not_null, count in rows:
            found.setdefault(table, {})[column] = {"type": kind, "not_null": not_null, "rows": count}
        return found

    def users_elsewhere(self, theirs: dict[str, dict[str, Any]]) -> sql.Composable:
        """The users in the tables that refer to users, if auth.users cannot be read."""
        tables = [
            name for name in ("public.profiles", "public.user_video_decisions") if "user_id" in theirs.get(name, {})
        ]
        self.say("auth.users cannot be read at the source: users are those of " + " and ".join(tables))
        selects = [sql.SQL("select user_id from {}").format(sql.Identifier(*name.split("."))) for name in tables]
        return sql.SQL("(select user_id as id from ({}) as named)").format(sql.SQL(" union ").join(selects))

    def whole_rows(self, pair: Pair, needed: list[str]) -> sql.Composable:
        """The rows with all ``needed`` values and without values too long for an index; counts and reports others."""
        table, relation = pair.table, pair.theirs
        conditions = [sql.SQL("{} is not null").format(sql.Identifier(name)) for name in needed]
        conditions += [
            sql.SQL("coalesce(octet_length({}::text) <= {}, true)").format(sql.Identifier(name), sql.Literal(most))
            for name, most in table.longest.items()
            if name in pair.columns
        ]
        if not conditions:
            return relation
        is_whole = sql.SQL(" and ").join(conditions)
        query = sql.SQL("select count(*) from {} as t where not ({})").format(relation, is_whole)
        incomplete = one(self.source, query)
        self.summary.tables.setdefault(table.name, TableSummary()).incomplete = incomplete
        return sql.SQL("(select * from {} as t where {})").format(relation, is_whole) if incomplete else relation

    def is_empty(self, table: PulledTable) -> bool:
        return not one(self.source, sql.SQL("select exists (select from {})").format(table.identifier))

    # ------------------------------------------------------------------------------------------------- differences

    def compare(self, pair: Pair) -> tuple[sql.Composable, sql.Composable]:
        """Conditions for the rows to copy at the source, and for the rows here that they replace."""
        told = self.summary.tables.setdefault(pair.table.name, TableSummary())
        theirs, size = self.digest(self.source, pair, pair.theirs)
        self.summary.bytes += size
        ours, _ = self.digest(self.target, pair, pair.table.identifier)
        told.rows = int(theirs["rows"].sum())
        renamed = theirs
        if pair.buckets == 0:
            assert self.pseudonyms is not None
            renamed = theirs.with_columns(
                pl.Series(
                    "bucket",
                    [str(UUID(bytes=self.pseudonyms.of(UUID(user).bytes))) for user in theirs["bucket"]],
                    pl.String,
                )
            )
        both = renamed.with_columns(theirs["bucket"].alias("there")).join(
            ours.with_columns(pl.col("bucket").alias("here")), on="bucket", how="full", suffix="_here"
        )
        same = (pl.col("rows") == pl.col("rows_here")) & (pl.col("hash") == pl.col("hash_here"))
        changed = both.filter(~same.fill_null(value=False))
        told.buckets, told.changed_buckets = len(both), len(changed)
        if len(changed) == 0:
            return sql.SQL("false"), sql.SQL("false")
        if len(changed) > max(len(both) // 2, 16) or len(changed) > 50_000:
            return sql.SQL("true"), sql.SQL("true")
        there = changed["there"].drop_nulls().to_list()
        here = pl.concat([changed["here"], changed["bucket"]]).drop_nulls().unique().to_list()
        return tuple(  # type: ignore[return-value]
            sql.SQL("{} = any ({}::text[])").format(self.bucket(pair), sql.Literal(values)) for values in (there, here)
        )

    @staticmethod
    def bucket(pair: Pair) -> sql.Composable:
        """The bucket of a row, as text."""
        key = sql.Identifier("t", pair.table.key[0])
        if pair.buckets == 0:
            return sql.SQL("{}::text").format(key)
        return sql.SQL('(hashtextextended({}::text collate "C", 0) & {})::text').format(
            key, sql.Literal(pair.buckets - 1)
        )

    def digest(self, connection: Connection, pair: Pair, relation: sql.Composable) -> tuple[pl.DataFrame, int]:
        """Bucket, number of rows, and the sum of their hashes; and the size of this answer in bytes."""
        # A pseudonym would have another hash, and the bucket already identifies the user.
        hashed = [name for at, name in enumerate(pair.columns) if at or pair.buckets]
        row = sql.SQL("row({})::text").format(
            sql.SQL(", ").join(self.cell(pair, name, canonical=True) for name in hashed)
        )
        query = sql.SQL(
            'copy (select {}, count(*), sum(hashtextextended({} collate "C", 0)) from {} as t group by 1)'
            " to stdout (format csv)"
        ).format(self.bucket(pair), row, relation)
        data = io.BytesIO()
        with connection.cursor().copy(query) as copy:
            for block in copy:
                data.write(block)
        schema = {"bucket": pl.String, "rows": pl.Int64, "hash": pl.String}
        size = data.tell()
        if not size:
            return pl.DataFrame(schema=schema), 0
        return pl.read_csv(data.getvalue(), has_header=False, schema=schema), size

    @staticmethod
    def cell(pair: Pair, name: str, *, canonical: bool = False) -> sql.Composable:
        """A column of ``t`` in the type in which it is transferred; ``canonical``: equal values have equal texts."""
        value: sql.Composable = sql.SQL("{}::" + pair.columns[name]).format(sql.Identifier("t", name))
        if name in pair.fill:
            value = sql.SQL("coalesce({}, {})").format(value, sql.SQL(pair.fill[name]))
        if name == WEIGHT:  # as two_tower.weight_of(), which the source may not have
            value = sql.SQL("least(greatest(coalesce(nullif({}, 'NaN'), 1), 0.01::real), 10::real)").format(value)
        if canonical and pair.columns[name] == "numeric":
            value = sql.SQL("trim_scale({})").format(value)
        return value

    # ---------------------------------------------------------------------------------------------------- the copy

    def stage(self, pair: Pair, scope: sql.Composable) -> None:
        """Copies the rows of ``scope`` into a temporary table."""
        table, told = pair.table, self.summary.tables[pair.table.name]
        columns = sql.SQL(", ").join(
            sql.SQL("{} " + kind).format(sql.Identifier(name)) for name, kind in pair.columns.items()
        )
        self.target.execute(sql.SQL("drop table if exists {}").format(table.staged))
        self.target.execute(
            sql.SQL("create temp table {} ({}) on commit drop").format(sql.Identifier(table.staged._obj[1]), columns)
        )
        if told.changed_buckets:
            cells = sql.SQL(", ").join(self.cell(pair, name) for name in pair.columns)
            query = sql.SQL("copy (select {} from {} as t where {}) to stdout (format binary)")
            into = sql.SQL("copy {} from stdin (format binary)").format(table.staged)
            with (
                self.source.cursor().copy(query.format(cells, pair.theirs, scope)) as outward,
                self.target.cursor() as cursor,
            ):
                with cursor.copy(into) as inward:
                    blocks: Iterable[bytes] = map(bytes, outward)
                    for block in _joined(self.pseudonyms.in_rows(blocks) if self.pseudonyms and table.user else blocks):
                        self.summary.bytes += len(block)
                        inward.write(block)
                told.copied = cursor.rowcount
        keys = sql.SQL(", ").join(map(sql.Identifier, table.key))
        try:
            self.target.execute(sql.SQL("alter table {} add primary key ({})").format(table.staged, keys))
        except psycopg.errors.UniqueViolation as error:
            raise UserError(
                f"the source has several rows of one {' and '.join(table.key)} in {table.name}:"
                f" {error.diag.message_detail}",
                "leave one of them there, and keep it so:"
                f" alter table {table.name} add unique ({', '.join(table.key)})",
            ) from error
        self.target.execute(sql.SQL("analyze {}").format(table.staged))

    # --------------------------------------------------------------------------------------------------- the merge

    def delete(self, pair: Pair, scope: sql.Composable) -> None:
        """Removes the rows of ``scope`` that the source does not have."""
        if not self.summary.tables[pair.table.name].changed_buckets:
            return
        query = sql.SQL("delete from {} as t where {} and not exists (select from {} s where {})")
        equal = self.equal(pair)
        deleted = self.target.execute(query.format(pair.table.identifier, scope, pair.table.staged, equal)).rowcount
        self.summary.tables[pair.table.name].deleted = deleted

    @staticmethod
    def equal(pair: Pair) -> sql.Composable:
        """The condition that ``s`` and ``t`` have the same key."""
        return sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(sql.Identifier("s", name), sql.Identifier("t", name)) for name in pair.table.key
        )

    def merge(self, pair: Pair) -> None:
        """Writes the rows that are new here or different."""
        table, told = pair.table, self.summary.tables[pair.table.name]
        if not told.copied:
            return
        for column, (parent, parent_key) in table.parents.items():
            query = sql.SQL("delete from {} s where not exists (select from {} p where p.{} = s.{})")
            named = (sql.Identifier(*parent.split(".")), sql.Identifier(parent_key), sql.Identifier(column))
            told.orphans += self.target.execute(query.format(table.staged, *named)).rowcount
        parts = {
            "table": table.identifier,
            "staged": table.staged,
            "equal": self.equal(pair),
            "columns": sql.SQL(", ").join(map(sql.Identifier, pair.columns)),
            "cells": sql.SQL(", ").join(self.incoming(pair, name) for name in pair.columns),
        }
        values = [name for name in pair.columns if name not in table.key]
        if values:
            query = sql.SQL(
                "update {table} t set ({set}) = row({cells}) from {staged} s"
                " where {equal} and row({current}) is distinct from row({cells})"
            )
            told.updated = self.target.execute(
                query.format(
                    table=table.identifier,
                    staged=table.staged,
                    equal=parts["equal"],
                    set=sql.SQL(", ").join(map(sql.Identifier, values)),
                    cells=sql.SQL(", ").join(self.incoming(pair, name) for name in values),
                    current=sql.SQL(", ").join(sql.Identifier("t", name) for name in values),
                )
            ).rowcount
        query = sql.SQL(
            "insert into {table} ({columns}) select {cells} from {staged} s"
            " where not exists (select from {table} t where {equal})"
        )
        told.inserted = self.target.execute(query.format(**parts)).rowcount

    @staticmethod
    def incoming(pair: Pair, name: str) -> sql.Composable:
        """A column of ``s`` in the type that it has here."""
        return sql.SQL("{}::" + pair.target_types[name]).format(sql.Identifier("s", name))

    # ----------------------------------------------------------------------------------------------- previous pulls

    def require_right_to_delete(self, replace: bool) -> None:
        """Raises UserError if this would delete rows that did not come from this source."""
        gone = {name: told.deleted for name, told in self.summary.tables.items() if told.deleted}
        if replace or not gone:
            return
        row = self.target.execute(
            "select result ->> 'source', result ->> 'key' from two_tower.job_runs where job = 'pull'"
            " order by id desc limit 1"
        ).fetchone()
        if row == (self.summary.source, self.fingerprint()):
            return
        listed = ", ".join(f"{count} of {name}" for name, count in gone.items())
        why = "the last pull came from elsewhere, or with another key" if row else "nothing here was pulled before"
        raise UserError(
            f"rows would be deleted that this source does not have: {listed}; {why}",
            "to make this database a copy of the source all the same: --replace",
        )

    def fingerprint(self) -> str | None:
        """Fingerprint of the key, if there is one."""
        return self.pseudonyms.fingerprint() if self.pseudonyms else None

    def record(self) -> None:
        """Records the source of the rows in the job log."""
        tables = {name: asdict(told) for name, told in self.summary.tables.items()}
        result = {"source": self.summary.source, "key": self.fingerprint(), "tables": tables}
        self.target.execute(
            "insert into two_tower.job_runs (job, result, finished_at) values ('pull', %s, clock_timestamp())",
            [Jsonb(result)],
        )


def _joined(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in larger pieces, since the source sends each row separately."""
    held, size = [], 0
    for block in blocks:
        held.append(block)
        size += len(block)
        if size >= _BLOCK:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
