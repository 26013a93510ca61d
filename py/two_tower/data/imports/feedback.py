"""Feedback on videos as numbers: the common part of reviews and decisions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, LiteralString

import numpy as np
import polars as pl
import psycopg
from psycopg import sql

from two_tower.data.imports.cells import (
    AHEAD,
    FIRST_MOMENT,
    NO_ID,
    NO_TIME,
    NOT_YET,
    TIMES,
    faults_of_length,
    outside,
    seems_ten_point,
    timestamps,
    with_ids,
)
from two_tower.data.imports.hashes import hash_uuids
from two_tower.data.imports.kind import new_id
from two_tower.data.imports.products import ADDRESS, OfProducts
from two_tower.data.imports.task import Import
from two_tower.errors import UserError
from two_tower.ids import UUID_BYTES, user_uuids

_SIZES = {"line": 8, "user": 16, "video": 16, "value": 4, "weight": 4, "created": 8}
_TYPES = {"line": ">i8", "user": UUID_BYTES, "video": UUID_BYTES, "value": ">f4", "weight": ">f4", "created": ">i8"}
_POSTGRES_EPOCH = 946_684_800_000_000
"""2000-01-01 in microseconds since 1970."""


def binary_rows(columns: Mapping[str, Any]) -> bytes:
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


class Feedback(OfProducts):
    """Feedback on videos as numbers."""

    refers_to_products = True
    user_column: LiteralString
    """The user's column in the target table."""
    value_column: LiteralString
    shown: LiteralString
    """SQL of a value for the report of rejects, from a row ``t``."""
    staged: LiteralString = "line bigint, user_id uuid, video_id uuid, value real, created_at timestamptz"
    """Columns of the temporary tables, in the order in which :meth:`pack` has them."""

    def __init__(self, task: Import, cursor: psycopg.Cursor[Any], columns: list[str]) -> None:
        super().__init__(task, cursor, columns)
        _, self.user, self.label = self.order(columns)
        self.time = next((name for name in TIMES if name in columns), None)
        (now,) = self.one("select now() at time zone 'utc'")
        self.latest = now + AHEAD
        cursor.execute("drop table if exists pg_temp.staged, pg_temp.created")
        # Videos that this transaction creates for rows that are not written yet.
        cursor.execute("create temp table created (id uuid) on commit drop")
        cursor.execute(sql.SQL("create temp table staged ({}) on commit drop").format(sql.SQL(self.staged)))
        self.sending: Future[None] | None = None

    @staticmethod
    def look(task: Import, batch: pl.DataFrame) -> None:
        """Decides by the first rows whether stars go to 10; an error if later rows show that the decision was wrong."""
        if (
            task.options.scale
            or task.scale == 10
            or "stars" not in batch.columns
            or not seems_ten_point(batch["stars"])
        ):
            return
        if task.scale_is_settled:
            raise UserError(
                f"{task.summary.source}: {task.done()}: from line {batch['line'][0]:,} on stars go to 10, and before"
                " that they do not",
                "say what the highest rating is: --scale 10, or --scale 5",
            )
        task.scale = 10.0
        task.options.say(
            f"{task.summary.source}: stars go to 10, so 10 are read as 5 (--scale 5 rejects what is above)"
        )

    @staticmethod
    @abstractmethod
    def order(columns: list[str]) -> tuple[str, str, str]:
        """The columns of item, user and label."""

    @abstractmethod
    def values(self, label: pl.Series) -> tuple[pl.Series, str]:
        """The numbers of labels, null for an invalid label, and the reason to reject those."""

    @staticmethod
    def word(value: float) -> str:
        """The meaning of a number."""
        return f"{value:g}"

    def weigh(self, batch: pl.DataFrame) -> tuple[pl.DataFrame, list[tuple[str, pl.Expr, str]]]:
        """``batch`` with further columns for :meth:`more`, and the faults that rows may have in these."""
        return batch, []

    def more(self, batch: pl.DataFrame) -> dict[str, Any]:
        """Further columns to stage, between the value and the time."""
        return {}

    def stage(self, batch: pl.DataFrame) -> None:
        batch = self.read_items(with_ids(batch, self.user, "user_is_no_id"))
        values, reason = self.values(batch[self.label])
        batch = batch.with_columns(values.alias("value"))
        self.task.joined += len(batch) - batch["video"].null_count()
        user = pl.col(self.user)
        batch, more = self.weigh(batch)
        faults = [
            *self.faults_of_items(),
            (self.user, user.is_null(), "empty"),
            (self.user, pl.col("user_is_no_id"), NO_ID),
            *faults_of_length(batch, {self.user: self.user}),
            (self.label, pl.col("value").is_null(), reason),
        ]
        creating = self.task.options.unknown == "create" and self.item == ADDRESS
        if creating:
            faults += faults_of_length(batch, {self.item: self.item})
        else:
            faults.append((self.item, pl.col("video").is_null(), "unknown product"))
        faults += more
        if self.time is not None:
            batch = batch.with_columns(timestamps(batch[self.time]).alias("created"))
            faults.append((self.time, pl.col(self.time).is_not_null() & pl.col("created").is_null(), NO_TIME))
            faults.append((self.time, outside("created", FIRST_MOMENT, self.latest), NOT_YET))
        batch = self.known_users(self.task.reject(batch, faults))
        self.pack(self.create_videos(batch) if creating else batch)

    def known_users(self, batch: pl.DataFrame) -> pl.DataFrame:
        """The rows of existing users."""
        return batch

    def create_videos(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Inserts the products that the catalogue lacks, with only their address. All rows are valid."""
        new = batch.filter(pl.col("video").is_null())
        unknown = new[self.item].unique(maintain_order=True)
        if len(unknown) == 0:
            return batch
        self.settle()
        self.take_turns("catalogue")
        self.cursor.execute("drop table if exists pg_temp.unknown")
        self.cursor.execute("create temp table unknown (line bigint, url text) on commit drop")
        first = new.unique(self.item, keep="first", maintain_order=True)
        self.copy("pg_temp.unknown", first.select("line", self.item))
        written = self.write_rows(
            "pg_temp.unknown",
            [
                sql.SQL(
                    "with created as ("
                    " insert into public.videos (id, product_url, title, published_at)"
                    " select {}, s.url, '', now() from pg_temp.unknown s where s.line between v_from and v_to"
                    " and not exists (select from public.videos v where v.product_url = s.url) order by s.line"
                    " returning id"
                    ") insert into pg_temp.created select id from created"
                ).format(new_id("videos", "video", "s.url"))
            ],
        )
        self.summary.items_created += written.counts[0]
        if len(written.refused):
            reasons = first.join(written.refused, on="line").select(self.item, "reason")
            bad = new.join(reasons, on=self.item, maintain_order="left")
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
        return self.with_videos(batch.drop("video"))

    def pack(self, batch: pl.DataFrame) -> None:
        """Copies the rows into the first table for them."""
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
        self.task.users.add(hash_uuids(users))
        for value, rows in batch.select((pl.col("value") * 2).round() / 2).to_series().value_counts().iter_rows():
            name = self.word(value)
            self.summary.distribution[name] = self.summary.distribution.get(name, 0) + rows
        values = {"user": users, "video": self.video_ids[videos], "value": batch["value"]}
        values |= self.more(batch) | {"created": moments}
        self.settle()
        self.sending = self.task.sender.submit(self.write, batch["line"], values)

    def settle(self) -> None:
        if self.sending:
            self.sending.result()

    def write(self, lines: pl.Series, values: Mapping[str, Any]) -> None:
        """Copies rows into the temporary table."""
        self.copy_binary("pg_temp.staged", {"line": lines, **values})

    def copy_binary(self, table: LiteralString, columns: Mapping[str, Any]) -> None:
        """Copies ``columns``, as ``binary_rows`` takes them, into a table."""
        with self.cursor.copy(sql.SQL("copy {} from stdin (format binary)").format(sql.SQL(table))) as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8) + binary_rows(columns) + b"\xff\xff")

    def find_changes(self, table: LiteralString, user: LiteralString, differs: LiteralString) -> None:
        """Fills ``changes`` with the last row of each user and video, if ``table`` (``t``) lacks it or ``differs``."""
        self.take_turns(table)
        self.cursor.execute("analyze pg_temp.staged")
        self.cursor.execute("drop table if exists pg_temp.changes")
        self.cursor.execute(
            sql.SQL("create temp table changes ({}, is_new boolean) on commit drop").format(sql.SQL(self.staged))
        )
        query = sql.SQL(
            "with latest as materialized ("
            " select distinct on (user_id, video_id) * from pg_temp.staged order by user_id, video_id, line desc"
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
        """Writes ``changes``: the last two steps update and insert; returns the counts of the steps before them."""
        written = self.write_rows("pg_temp.changes", steps)
        *others, updated, inserted = written.counts
        self.summary.updated += updated
        self.summary.inserted += inserted
        if len(written.refused):
            self.take_back_videos()
            for value, rows in self.cursor.execute(
                "select round(c.value * 2) / 2, count(*)"
                " from pg_temp.changes c join pg_temp.refused r using (line) group by 1"
            ).fetchall():
                self.summary.distribution[self.word(value)] -= rows
        fields = {"video_id": (self.item, "t.video_id"), self.user_column: (self.user, "t.user_id")}
        fields |= {self.value_column: (self.label, self.shown), "created_at": (self.time or "", "t.created_at")}
        self.reject_refused(written, "pg_temp.changes", fields)
        return others

    def take_back_videos(self) -> None:
        """Deletes created videos if the database then refused all of their rows."""
        self.summary.items_created -= self.cursor.execute(
            "delete from public.videos v using pg_temp.created n where v.id = n.id and not exists ("
            " select from pg_temp.changes c where c.video_id = v.id"
            " and c.line not in (select r.line from pg_temp.refused r))"
        ).rowcount

    def count_distinct(self) -> None:
        self.task.items.add(hash_uuids(self.video_ids[self.seen]))
