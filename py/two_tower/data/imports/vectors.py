"""Vectors of videos by an encoder of images or texts: inputs that place a video."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import psycopg
from psycopg import sql

from two_tower.data.imports.cells import lists_of_numbers
from two_tower.data.imports.products import ADDRESS, IDS, OfProducts
from two_tower.data.imports.task import Import
from two_tower.errors import UserError

MOST_NUMBERS = 2_000
"""Most numbers in a vector. SQL: ``two_tower.unit_vector``."""

NUMBERS_THERE = sql.SQL(
    "select (select cardinality(c.vector) from two_tower.content_vectors c where c.encoder = {} limit 1)"
)

BLOCK = 2_000
"""Vectors that are converted to text at once."""


class Vectors(OfProducts):
    name = "vectors"
    analyze = "analyze two_tower.content_vectors"
    required = ((*IDS, ADDRESS), ("vector", "embedding"))
    lists = ("vector", "embedding")

    def __init__(self, task: Import, cursor: psycopg.Cursor[Any], columns: list[str], *, encoder: str) -> None:
        super().__init__(task, cursor, columns)
        self.encoder = encoder
        self.vector = columns[1]
        self.numbers = self.numbers_there()
        """Size of the vectors: that of the encoder's stored vectors, or else of the first one in the file."""
        cursor.execute("drop table if exists pg_temp.staged, pg_temp.changes")
        cursor.execute("create temp table staged (line bigint, video_id uuid, vector real[]) on commit drop")

    def numbers_there(self) -> int | None:
        (numbers,) = self.one(NUMBERS_THERE.format(sql.Literal(self.encoder)))
        return None if numbers is None else int(numbers)

    def stage(self, batch: pl.DataFrame) -> None:
        for part in batch.iter_slices(BLOCK):
            self.stage_block(part)

    def stage_block(self, batch: pl.DataFrame) -> None:
        read = lists_of_numbers(batch[self.vector])
        batch = self.read_items(batch.with_columns(read.alias("read")))
        known = batch["read"].list.len().drop_nulls()
        if self.numbers is None and len(known):
            self.numbers = int(known[0])
        size = pl.col("read").list.eval(pl.element().cast(pl.Float64).pow(2)).list.sum()
        given, numbers = pl.col(self.vector).is_not_null(), pl.col("read").list.len()
        batch = self.task.reject(
            batch,
            [
                *self.faults_of_items(),
                (self.item, pl.col("video").is_null(), "unknown product"),
                (self.vector, ~given, "empty"),
                (self.vector, pl.col("read").is_null(), "not a list of finite numbers, such as [0.25, -1, 0.5]"),
                (self.vector, ~numbers.is_between(1, MOST_NUMBERS), f"not from 1 to {MOST_NUMBERS:,} numbers"),
                (
                    self.vector,
                    numbers != (self.numbers or 0),
                    f"vectors of {self.encoder} have {self.numbers} numbers: another encoder takes another --encoder",
                ),
                (self.vector, ~size.is_finite() | (size == 0), "a vector without a direction"),
            ],
        )
        if len(batch) == 0:
            return
        videos = batch["video"].to_numpy()
        self.seen[videos] = True
        listed = pl.concat_str(pl.lit("{"), pl.col("read").cast(pl.List(pl.String)).list.join(","), pl.lit("}")).alias(
            "vector"
        )
        ids = pl.Series("video_id", [bytes(video).hex() for video in self.video_ids[videos].tolist()], pl.String)
        self.copy("pg_temp.staged", batch.select("line", ids, listed))

    def merge(self) -> None:
        self.take_turns("content_vectors")
        # Another import may have stored the first vectors meanwhile.
        if self.numbers and (there := self.numbers_there()) not in (None, self.numbers):
            raise UserError(
                f"vectors of {self.encoder} have {there} numbers, and those of the file {self.numbers}",
                "another encoder takes another --encoder",
            )
        # Vectors of several images of a video are combined into their mean direction.
        self.cursor.execute(
            "create temp table changes on commit drop as"
            " with means as ("
            " select min(line) as line, video_id, count(*) as rows, case when count(*) = 1 then min(vector)"
            " else extensions.avg(two_tower.unit_vector(vector)::extensions.vector order by line)::real[] end as vector"
            " from pg_temp.staged group by video_id"
            ") select m.line, m.video_id, m.rows, m.vector from means m"
        )
        (merged,) = self.one("select coalesce(sum(rows - 1), 0)::bigint from pg_temp.changes")
        self.summary.duplicates += merged
        name = sql.Literal(self.encoder)
        written = self.write_rows(
            "pg_temp.changes",
            [
                sql.SQL(
                    "update two_tower.content_vectors c set vector = n.vector from pg_temp.changes n"
                    " where n.line between v_from and v_to and c.video_id = n.video_id and c.encoder = {}"
                    " and c.vector is distinct from two_tower.unit_vector(n.vector)"
                ).format(name),
                sql.SQL(
                    "insert into two_tower.content_vectors (video_id, encoder, vector)"
                    " select n.video_id, {0}, n.vector from pg_temp.changes n"
                    " where n.line between v_from and v_to and not exists (select from two_tower.content_vectors c"
                    " where c.video_id = n.video_id and c.encoder = {0}) order by n.video_id"
                ).format(name),
            ],
        )
        updated, inserted = written.counts
        self.summary.updated += updated
        self.summary.inserted += inserted
        self.summary.items += int(np.count_nonzero(self.seen))
        self.reject_refused(written, "pg_temp.changes", {})
