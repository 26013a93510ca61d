"""Files whose rows are about products of the catalogue, by address or by id."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import psycopg
from psycopg import sql

from two_tower.data.addresses import by_normal
from two_tower.data.imports.cells import NO_ID, with_ids
from two_tower.data.imports.kind import OTHERWISE_FOUND, Kind, leads_to
from two_tower.data.imports.task import Import
from two_tower.ids import UUID_BYTES, UUID_PATTERN, uuid_bytes

ADDRESS = "product_url"
IDS = ("video_id", "item_id")
PRODUCTS = (ADDRESS, *IDS)
"""The columns that may name a product."""


class OfProducts(Kind):
    """Rows about products of the catalogue."""

    def __init__(self, task: Import, cursor: psycopg.Cursor[Any], columns: list[str]) -> None:
        super().__init__(task, cursor, columns)
        self.item = next(name for name in columns if name in PRODUCTS)
        self.videos = pl.DataFrame(schema={"item": pl.String, "video": pl.UInt32})
        self.video_ids = np.empty(0, UUID_BYTES)
        self.seen = np.empty(0, bool)
        """Which of ``video_ids`` have a row in the file."""
        query = sql.SQL(
            "copy (select distinct on ({key}) {key}, id from public.videos where {key} is not null order by {key}, id)"
            " to stdout (format csv)"
        ).format(key=sql.Identifier("product_url" if self.item == ADDRESS else "id"))
        with cursor.copy(query) as copy:
            data = b"".join(copy)
        if data:
            known = pl.read_csv(data, has_header=False, schema={"item": pl.String, "id": pl.String})
            if self.normalise and self.item == ADDRESS:
                stored = by_normal(known["item"], self.normalise)
                joined = stored.join(known, left_on="stored", right_on="item", maintain_order="left")
                known = joined.select(pl.col("normal").alias("item"), "id")
            self.know(known["item"], known["id"])
            links = known.filter(pl.col("item").str.contains(OTHERWISE_FOUND))
            led = links.with_columns(pl.Series("item", [leads_to(link) for link in links["item"]], pl.String))
            if self.normalise and self.item == ADDRESS:
                led = led.with_columns(self.normalise(led["item"]))
            led = led.unique("item", keep="first", maintain_order=True)
            led = led.join(known, on="item", how="anti", maintain_order="left")
            self.know(led["item"], led["id"])

    def know(self, items: pl.Series, ids: pl.Series) -> None:
        """Adds videos to the known ones."""
        start = len(self.videos)
        at = pl.int_range(start, start + len(items), dtype=pl.UInt32, eager=True)
        self.videos = pl.concat([self.videos, pl.DataFrame({"item": items, "video": at})])
        self.video_ids = np.concatenate([self.video_ids, uuid_bytes(ids)])
        self.seen = np.concatenate([self.seen, np.zeros(len(ids), bool)])

    def read_items(self, batch: pl.DataFrame) -> pl.DataFrame:
        """The rows with their product as the catalogue would write it, and with ``video`` if it is known."""
        batch = with_ids(batch, self.item, "item_is_no_id")
        if self.item in IDS:
            batch = batch.with_columns(pl.col(self.item).str.to_lowercase())
        elif self.normalise:
            batch = batch.with_columns(self.normalise(batch[self.item]))
        return self.with_videos(batch)

    def faults_of_items(self) -> list[tuple[str, pl.Expr, str]]:
        """Possible faults of a row's product, except that it is unknown."""
        item = pl.col(self.item)
        faults = [(self.item, item.is_null(), "empty"), (self.item, pl.col("item_is_no_id"), NO_ID)]
        if self.item in IDS:
            faults.append((self.item, ~item.str.contains(UUID_PATTERN), "not a UUID"))
        return faults

    def with_videos(self, batch: pl.DataFrame) -> pl.DataFrame:
        """The rows with ``video``, if the product is known."""
        return batch.join(self.videos, left_on=self.item, right_on="item", how="left", maintain_order="left")
