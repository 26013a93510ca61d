"""Copies what the towers need from another PostgreSQL, such as a Supabase, and keeps the copy up to date.

The source is read in one read-only transaction, hence in one snapshot, without prepared statements and without
anything that outlives the transaction, so a transaction pooler will do. Rows are dealt into buckets by a hash of their
key. Both sides count and hash the rows of every bucket; only buckets that differ are copied, in binary, into temporary
tables, and merged: rows that are gone are deleted, rows that are equal are not written. No column has to say when a
row changed, and a deletion needs no tombstone.

With a key, ids of users become HMACs of themselves on the way. A bucket is then one user, since the two sides know
users by different names: the id and the hash of every user cross the wire at each run, their rows only if they differ.
Such ids are pseudonyms: without the key nobody can tell whose they are, but what somebody liked, and when, stays.
"""

from __future__ import annotations

import hmac
import io
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from uuid import UUID

import polars as pl
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from two_tower.database import open_connection, settle_transaction
from two_tower.errors import UserError
from two_tower.progress import Progress, Say
from two_tower.rows import one

Connection = psycopg.Connection[Any]
ROWS_PER_BUCKET = 64
_BLOCK = 256 << 10
_REMEMBERED = 200_000
"""Users whose pseudonyms are kept at hand."""
_HEADER = 19  # of a binary COPY: signature, flags, length of an extension


@dataclass(frozen=True)
class PulledTable:
    """A table, its key, and the columns that are copied where both sides have them."""

    name: str
    key: tuple[str, ...]
    columns: dict[str, str]
    """Name → the type in which it travels. Those of the key come first."""
    user: bool = False
    """Whether the first column is the id of a user."""
    parents: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Column → the table and the column that it refers to."""
    required: tuple[str, ...] = ()
    """Columns without which nothing can be pulled; none where the table may be missing."""
    needed: tuple[str, ...] = ()
    """Columns, beside those of the key, without whose value a row means nothing."""

    @property
    def schema(self) -> str:
        return self.name.split(".")[0]

    @property
    def relation(self) -> str:
        return self.name.split(".")[1]

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.relation)

    @property
    def staged(self) -> sql.Identifier:
        return sql.Identifier("pg_temp", f"pulled_{self.relation}")


_VIDEO = {"video_id": ("public.videos", "id")}
_TIME = "timestamptz"
_USERS = "auth.users"
_FILL = {"text": "''", _TIME: "timestamptz 'epoch'"}
"""What stands for a null where there must be a value: by type, and always the same, or every pull would copy it."""

TABLES = (
    PulledTable(_USERS, ("id",), {"id": "uuid", "created_at": _TIME}, user=True),
    PulledTable("public.tags", ("id",), {"id": "uuid", "name": "text"}, needed=("name",)),
    PulledTable("public.performers", ("id",), {"id": "uuid", "name": "text"}, needed=("name",)),
    PulledTable(
        "public.videos",
        ("id",),
        {
            "id": "uuid", "product_url": "text", "title": "text", "description": "text", "maker": "text",
            "label": "text", "series": "text", "source": "text", "thumbnail_url": "text", "price": "numeric",
            "duration_seconds": "int4", "distribution_started_at": _TIME, "product_released_at": _TIME,
            "published_at": _TIME, "created_at": _TIME,
        },
        required=("id", "product_url"),
        needed=("product_url",),
    ),
    PulledTable(
        "public.video_tags",
        ("video_id", "tag_id"),
        {"video_id": "uuid", "tag_id": "uuid"},
        parents=_VIDEO | {"tag_id": ("public.tags", "id")},
    ),
    PulledTable(
        "public.video_performers",
        ("video_id", "performer_id"),
        {"video_id": "uuid", "performer_id": "uuid"},
        parents=_VIDEO | {"performer_id": ("public.performers", "id")},
    ),
    PulledTable(
        "public.profiles",
        ("user_id",),
        {"user_id": "uuid", "created_at": _TIME},
        user=True,
        parents={"user_id": (_USERS, "id")},
    ),
    PulledTable(
        "public.user_video_decisions",
        ("user_id", "video_id"),
        {"user_id": "uuid", "video_id": "uuid", "decision_type": "text", "created_at": _TIME},
        user=True,
        parents=_VIDEO | {"user_id": (_USERS, "id")},
        required=("user_id", "video_id", "decision_type"),
        needed=("decision_type",),
    ),
    PulledTable(
        "two_tower.reviews",
        ("reviewer_id", "video_id"),
        {"reviewer_id": "uuid", "video_id": "uuid", "stars": "real", "created_at": _TIME},
        user=True,
        parents=_VIDEO,
        needed=("stars",),
    ),
)  # fmt: skip
"""Parents before children."""


@dataclass
class TableSummary:
    """What became of one table."""

    rows: int = 0
    """At the source, in the snapshot."""
    buckets: int = 0
    changed_buckets: int = 0
    copied: int = 0
    """Rows that crossed the wire."""
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    orphans: int = 0
    """Rows that refer to a user, video, tag or performer that the source does not have; they are left out."""
    incomplete: int = 0
    """Rows without what a row must have, such as a tag's name; they are left out."""


@dataclass
class PullSummary:
    """What became of every table that the source has."""

    source: str
    """Role, host, port and database; no password."""
    tables: dict[str, TableSummary] = field(default_factory=dict)
    bytes: int = 0
    """Of rows and of digests that the source sent."""
    anonymised: bool = False
    dry_run: bool = False
    seconds: float = 0.0

    def to_json(self) -> str:
        """The summary as a JSON object."""
        return json.dumps(asdict(self), ensure_ascii=False)


@dataclass(frozen=True)
class _Pair:
    """A table on both sides: the columns that both have, as each side says them."""

    table: PulledTable
    columns: dict[str, str]
    """Column → type in which it travels."""
    theirs: sql.Composable
    """What to select from at the source."""
    target_types: dict[str, str]
    fill: dict[str, str]
    """Columns that must not be null here, each with the SQL that stands for a null there."""
    buckets: int
    """A power of two; 0 where a bucket is a user."""


def pull(
    target: Connection,
    source_dsn: str,
    *,
    key: bytes | None = None,
    replace: bool = False,
    dry_run: bool = False,
    say: Say = lambda _: None,
    progress: Progress = lambda _what, _share: None,
) -> PullSummary:
    """Makes the tables of ``target`` equal to those at ``source_dsn``, in one transaction.

    ``key`` turns ids of users into pseudonyms. Rows of ``target`` that the source lacks are deleted only if the last
    pull came from the same source with the same key, or with ``replace``. Raises UserError where the source cannot be
    read in full, or rows would be deleted that did not come from it; nothing has changed then.
    """
    started = time.monotonic()
    target.prepare_threshold = None  # this one may be behind a pooler as well
    with _open(source_dsn, say) as source:
        info = source.info
        summary = PullSummary(
            f"{info.user}@{info.host}:{info.port}/{info.dbname}", anonymised=key is not None, dry_run=dry_run
        )
        try:
            with source.transaction(), target.transaction(force_rollback=dry_run):
                _Pull(source, target, key, summary, say, progress).run(replace)
        except psycopg.errors.InsufficientPrivilege as error:
            raise UserError(
                f"not everything can be read or written: {error.diag.message_primary}",
                "at the source take a role that sees all rows: the tables' owner, or one with BYPASSRLS",
            ) from error
        except psycopg.OperationalError as error:
            if not source.closed and not target.closed:
                raise
            which = "source" if source.closed else "target"
            raise UserError(
                f"the connection to the {which} was lost, and nothing has changed: {str(error).strip()}",
                "run this again",
            ) from error
    summary.seconds = round(time.monotonic() - started, 3)
    return summary


def _open(dsn: str, say: Say) -> Connection:
    try:
        # A transaction pooler may give every transaction another server: nothing may be prepared in one.
        source = open_connection(
            dsn, autocommit=True, settle=False, prepare_threshold=None, application_name="two-tower pull"
        )
    except psycopg.OperationalError as error:
        raise UserError(
            f"cannot connect to the source: {str(error).strip()}",
            "to verify its certificate: sslmode=verify-full&sslrootcert=FILE in the connection string",
        ) from error
    except psycopg.ProgrammingError:
        # The message repeats the string, and with it a password.
        raise UserError("--from is not a connection string", "postgresql://user:password@host:5432/database") from None
    source.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    source.read_only = True
    remote = source.info.hostaddr not in ("", "127.0.0.1", "::1")
    if remote and source.info.get_parameters().get("sslmode") not in ("verify-ca", "verify-full"):
        say("the source's certificate is not verified: add sslmode=verify-full&sslrootcert=FILE to the string")
    return source


class _Pull:
    """One run, inside one transaction on either side."""

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
        self.key = key
        self.summary = summary
        self.say = say
        self.progress = progress
        self.pseudonyms: dict[bytes, bytes] = {}

    def run(self, replace: bool) -> None:
        for connection in (self.source, self.target):
            # A row's text must be the same on both sides; and no limit of the role may end a long copy. For the
            # transaction alone, since either side may be behind a pooler.
            settle_transaction(connection)
        self.source.execute("set local row_security = off")  # an error instead of some of the rows
        self.target.execute("select pg_advisory_xact_lock(hashtextextended('two_tower.catalogue', 0))")
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

    # ------------------------------------------------------------------------------------------------- what there is

    def pairs(self) -> list[_Pair]:
        """The tables that both sides have, with their common columns. UserError if the source lacks what it takes."""
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
            columns = {name: kind for name, kind in table.columns.items() if name in there and name in here}
            if table.name == _USERS and "id" not in there:
                relation = self.users_elsewhere(theirs)
                columns = {"id": "uuid"}
            elif any(name not in there for name in table.key):
                self.say(f"the source has no {table.name}, or this role may not read it: it is left as it is here")
                continue
            elif table.schema == "two_tower" and self.is_empty(table):
                continue  # reviews that were imported here stay
            needed = [name for name in (*table.key, *table.needed) if name in columns]
            partial[table.name] = [name for name in needed if not there.get(name, {}).get("not_null")]
            rows = max((row["rows"] for row in there.values()), default=-1)
            buckets = 1 << max(4, int((rows if rows >= 0 else 1 << 18) // ROWS_PER_BUCKET).bit_length())
            found.append(
                _Pair(
                    table,
                    columns,
                    relation,
                    {name: here[name]["type"] for name in columns},
                    {name: _FILL[kind] for name, kind in columns.items() if kind in _FILL and here[name]["not_null"]},
                    0 if self.key and table.user else buckets,
                )
            )
        if missing:
            raise UserError(
                f"the source lacks, or this role may not read: {', '.join(missing)}",
                "take a role that may select from the application's tables",
            )
        return [
            replace(pair, theirs=self.whole_rows(pair.table, pair.theirs, names)) if names else pair
            for pair in found
            for names in (partial[pair.table.name],)
        ]

    @staticmethod
    def describe(connection: Connection) -> dict[str, dict[str, dict[str, Any]]]:
        """Table → column → type, whether it must not be null, and the table's rows as estimated (-1: never)."""
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
        """Users as the tables name them that refer to users, where auth.users cannot be read."""
        tables = [
            name for name in ("public.profiles", "public.user_video_decisions") if "user_id" in theirs.get(name, {})
        ]
        self.say("auth.users cannot be read at the source: users are those of " + " and ".join(tables))
        selects = [sql.SQL("select user_id from {}").format(sql.Identifier(*name.split("."))) for name in tables]
        return sql.SQL("(select user_id as id from ({}) as named)").format(sql.SQL(" union ").join(selects))

    def whole_rows(self, table: PulledTable, relation: sql.Composable, needed: list[str]) -> sql.Composable:
        """The rows that have a value of all ``needed``; says how many have not."""
        is_whole = sql.SQL(" and ").join(sql.SQL("{} is not null").format(sql.Identifier(name)) for name in needed)
        query = sql.SQL("select count(*) from {} as t where not ({})").format(relation, is_whole)
        incomplete = one(self.source, query)
        self.summary.tables.setdefault(table.name, TableSummary()).incomplete = incomplete
        return sql.SQL("(select * from {} as t where {})").format(relation, is_whole) if incomplete else relation

    def is_empty(self, table: PulledTable) -> bool:
        return not one(self.source, sql.SQL("select exists (select from {})").format(table.identifier))

    # ------------------------------------------------------------------------------------------------- what differs

    def compare(self, pair: _Pair) -> tuple[sql.Composable, sql.Composable]:
        """Conditions for the rows to copy at the source, and for the rows here that they replace."""
        told = self.summary.tables.setdefault(pair.table.name, TableSummary())
        theirs, size = self.digest(self.source, pair, pair.theirs)
        self.summary.bytes += size
        ours, _ = self.digest(self.target, pair, pair.table.identifier)
        told.rows = int(theirs["rows"].sum())
        renamed = theirs
        if pair.buckets == 0:
            renamed = theirs.with_columns(
                pl.Series(
                    "bucket",
                    [str(UUID(bytes=self.pseudonym(UUID(user).bytes))) for user in theirs["bucket"]],
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
    def bucket(pair: _Pair) -> sql.Composable:
        """The bucket of a row, as text."""
        key = sql.Identifier("t", pair.table.key[0])
        if pair.buckets == 0:
            return sql.SQL("{}::text").format(key)
        return sql.SQL('(hashtextextended({}::text collate "C", 0) & {})::text').format(
            key, sql.Literal(pair.buckets - 1)
        )

    def digest(self, connection: Connection, pair: _Pair, relation: sql.Composable) -> tuple[pl.DataFrame, int]:
        """Bucket, number of rows, and the sum of their hashes; and its size in bytes."""
        # A pseudonym's hash would be another; the bucket says already whose the rows are.
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
    def cell(pair: _Pair, name: str, *, canonical: bool = False) -> sql.Composable:
        """A column of ``t`` in the type in which it travels; ``canonical``: equal values have equal texts."""
        value: sql.Composable = sql.SQL("{}::" + pair.columns[name]).format(sql.Identifier("t", name))
        if name in pair.fill:
            value = sql.SQL("coalesce({}, {})").format(value, sql.SQL(pair.fill[name]))
        if canonical and pair.columns[name] == "numeric":
            value = sql.SQL("trim_scale({})").format(value)
        return value

    # ---------------------------------------------------------------------------------------------------- the copy

    def stage(self, pair: _Pair, scope: sql.Composable) -> None:
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
                    for block in _joined(self.pseudonymised(blocks) if self.key and table.user else blocks):
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

    def pseudonym(self, user: bytes) -> bytes:
        """The id that stands for a user's, both of 16 bytes: HMAC-SHA256 under the key, as a UUID of version 8."""
        found = self.pseudonyms.get(user)
        if found is None:
            assert self.key is not None
            made = bytearray(hmac.digest(self.key, user, "sha256")[:16])
            made[6] = made[6] & 0x0F | 0x80
            made[8] = made[8] & 0x3F | 0x80
            found = bytes(made)
            if len(self.pseudonyms) >= _REMEMBERED:
                self.pseudonyms.clear()
            self.pseudonyms[user] = found
        return found

    def pseudonymised(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """A binary COPY with the first column of every row, an id, replaced."""
        buffer, begun = bytearray(), False
        for block in blocks:
            buffer += block
            if not begun and len(buffer) < _HEADER:
                continue
            at = 0 if begun else _HEADER
            begun = True
            while (end := _end_of_row(buffer, at)) is not None:
                if end - at > 2:  # else the trailer
                    buffer[at + 6 : at + 22] = self.pseudonym(bytes(buffer[at + 6 : at + 22]))
                at = end
            yield bytes(buffer[:at])
            del buffer[:at]

    # --------------------------------------------------------------------------------------------------- the merge

    def delete(self, pair: _Pair, scope: sql.Composable) -> None:
        """Removes the rows of ``scope`` that the source does not have."""
        if not self.summary.tables[pair.table.name].changed_buckets:
            return
        query = sql.SQL("delete from {} as t where {} and not exists (select from {} s where {})")
        equal = self.equal(pair)
        deleted = self.target.execute(query.format(pair.table.identifier, scope, pair.table.staged, equal)).rowcount
        self.summary.tables[pair.table.name].deleted = deleted

    @staticmethod
    def equal(pair: _Pair) -> sql.Composable:
        """That ``s`` and ``t`` have the same key."""
        return sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(sql.Identifier("s", name), sql.Identifier("t", name)) for name in pair.table.key
        )

    def merge(self, pair: _Pair) -> None:
        """Writes the rows that are new, or other than they are here."""
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
    def incoming(pair: _Pair, name: str) -> sql.Composable:
        """A column of ``s`` in the type that it has here."""
        return sql.SQL("{}::" + pair.target_types[name]).format(sql.Identifier("s", name))

    # ----------------------------------------------------------------------------------------------- what came before

    def require_right_to_delete(self, replace: bool) -> None:
        """UserError if rows went that did not come from this source."""
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
        """Tells one key from another, and nothing else of it."""
        return hmac.digest(self.key, b"two-tower pull", "sha256").hex()[:16] if self.key else None

    def record(self) -> None:
        """Says in the job log from where the rows came."""
        tables = {name: asdict(told) for name, told in self.summary.tables.items()}
        result = {"source": self.summary.source, "key": self.fingerprint(), "tables": tables}
        self.target.execute(
            "insert into two_tower.job_runs (job, result, finished_at) values ('pull', %s, clock_timestamp())",
            [Jsonb(result)],
        )


def _end_of_row(buffer: bytearray, at: int) -> int | None:
    """Where the row of a binary COPY that begins at ``at`` ends; None if it is not all there."""
    if at + 2 > len(buffer):
        return None
    fields = int.from_bytes(buffer[at : at + 2], signed=True)
    at += 2
    for _ in range(max(fields, 0)):
        if at + 4 > len(buffer):
            return None
        at += 4 + max(int.from_bytes(buffer[at : at + 4], signed=True), 0)
    return at if at <= len(buffer) else None


def _joined(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in larger pieces: the source sends every row by itself."""
    held, size = [], 0
    for block in blocks:
        held.append(block)
        size += len(block)
        if size >= _BLOCK:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
