"""Videos, their tags and their performers."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import polars as pl
import psycopg
from psycopg import sql

from two_tower.data.addresses import by_normal
from two_tower.data.imports.cells import (
    FACTS,
    NO_ID,
    facts,
    faults_of_length,
    listed,
    listed_addresses,
    names,
    prose,
    texts,
    with_ids,
)
from two_tower.data.imports.kind import ANALYZE, OTHERWISE_FOUND, Kind, leads_to, new_id
from two_tower.data.imports.task import Import
from two_tower.lists import NO_LIST


class Catalog(Kind):
    name = "catalog"
    analyze = "analyze public.videos, public.tags, public.video_tags, public.performers, public.video_performers"
    required = (("product_url",), ("title",))
    linked: ClassVar = {
        "tags": ("tags", "video_tags", "tag_id"),
        "performers": ("performers", "video_performers", "performer_id"),
    }
    values: ClassVar = {
        "title": "title",
        "description": "description",
        "maker": "maker",
        "label": "label",
        "series": "series",
        "source": "source",
        "price": "price",
        "duration_seconds": "duration_seconds",
        "released_at": "product_released_at",
        "thumbnail_url": "thumbnail_url",
        "image_urls": "image_urls",
    }
    several = "image_urls"
    """A list in a column of the videos themselves, which an adopted table may lack."""
    lists: ClassVar = (*linked, several)
    prose: ClassVar = ("title", "description")
    optional = (*linked, *(name for name in values if name != "title"))

    def __init__(self, task: Import, cursor: psycopg.Cursor[Any], columns: list[str]) -> None:
        super().__init__(task, cursor, columns)
        self.columns_of_videos = self.types("public.videos")
        cell = _cell_of_list(self.columns_of_videos.get(self.several, ""))
        left_out = self.several if cell is None else None
        self.texts = [name for name in self.values if name in columns and name != left_out]
        self.list_cell = cell or ""
        self.present = [name for name in self.linked if name in columns]
        cursor.execute("drop table if exists pg_temp.staged, pg_temp.staged_names, pg_temp.matched, pg_temp.touched")
        # As text, since a column of an adopted table may have any type; checked before, cast in the merge. Only the
        # address has the column's type, without checks, so that the type decides which are equal, such as citext.
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
            "select product_url from public.videos where product_url ~ %s order by product_url desc", [OTHERWISE_FOUND]
        ).fetchall()
        self.links = {leads_to(link): link for (link,) in links}
        """Address → the one under which the catalogue has it: an affiliate link, or another spelling."""
        for (address,) in cursor.execute(
            "select product_url from public.videos where product_url = any (%s)", [list(self.links)]
        ).fetchall():
            self.links.pop(address, None)
        if self.normalise:
            stored = cursor.execute("select product_url from public.videos where product_url is not null").fetchall()
            known = by_normal(pl.Series([address for (address,) in stored], dtype=pl.String), self.normalise)
            led = pl.Series(list(self.links), dtype=pl.String)
            self.links = dict(zip(self.normalise(led), self.links.values(), strict=True)) | dict(known.iter_rows())

    def stage(self, batch: pl.DataFrame) -> None:
        batch = with_ids(batch, "product_url", "product_url_is_no_id")
        several = [name for name in self.texts if name == self.several]
        single = [name for name in self.texts if name not in (*FACTS, *several)]
        lists = {name: listed(batch[name]) for name in self.present}
        lists |= {name: listed_addresses(batch[name]) for name in several}
        batch = batch.with_columns(
            *((prose if name in self.prose else names)(batch[name]) for name in single),
            *(_no_list(batch[name], lists[name]) for name in lists),
            *(each.alias(f"{name}_") for name, each in lists.items()),
        )
        if self.normalise:
            batch = batch.with_columns(self.normalise(batch["product_url"]))
        if self.links:
            batch = batch.with_columns(pl.col("product_url").replace(self.links))
        read = {name: name for name in ("product_url", *single)} | {name: f"{name}_" for name in lists}
        faults = [
            ("product_url", pl.col("product_url").is_null(), "empty"),
            ("product_url", pl.col("product_url_is_no_id"), NO_ID),
            *faults_of_length(batch, read),
            *((name, pl.col(f"{name}_is_no_list"), NO_LIST) for name in lists),
        ]
        batch, of_facts = facts(batch)
        batch = self.task.reject(batch, [*faults, *of_facts])
        if "released_at_" in batch.columns:
            when = pl.col("released_at_").dt.strftime("%Y-%m-%d %H:%M:%S%.6f+00")
            batch = batch.with_columns(when.alias("released_at"))
        if "duration_seconds_" in batch.columns:
            batch = batch.with_columns(pl.col("duration_seconds_").cast(pl.Int64).alias("duration_seconds"))
        if "price_text" in batch.columns:
            batch = batch.with_columns(pl.col("price_text").alias("price"))
        batch = batch.with_columns(_as_json(batch[f"{name}_"]).alias(name) for name in several)
        self.copy("pg_temp.staged", batch.select("line", "product_url", *self.texts))
        for kind in self.present:
            frame = batch.select(pl.lit(kind).alias("kind"), "line", pl.col(f"{kind}_").alias("name")).explode("name")
            self.copy("pg_temp.staged_names", frame.filter(pl.col("name").is_not_null()))

    def merge(self) -> None:
        self.take_turns("catalogue")
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
        # A title is never null, nor is a list; the other columns are as in the file.
        written = {"title": "coalesce(s.title, '')", self.several: self.list_cell}
        cells = sql.SQL(", ").join(
            sql.SQL(written.get(name) or f"s.{{}}::{self.columns_of_videos[target]}").format(sql.Identifier(name))
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
            ).format(id=new_id("videos", "video", "s.product_url"), columns=columns, cells=cells),
            sql.SQL(
                "insert into pg_temp.matched"
                " select distinct on (s.line) s.line, v.id"
                " from pg_temp.staged s join public.videos v using (product_url)"
                " where s.line between v_from and v_to order by s.line, v.id"
            ).format(),
            sql.SQL(ANALYZE.format("pg_temp.matched")).format(),
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
        """Statements that give the file's videos exactly the file's tags and performers."""
        steps: list[sql.Composed] = []
        for kind in self.present:
            names, links, link = self.linked[kind]
            parts = {
                "kind": sql.Literal(kind),
                "names": sql.Identifier("public", names),
                "links": sql.Identifier("public", links),
                "link": sql.Identifier(link),
                # The table's type decides which names are equal.
                "name": sql.SQL("n.name::" + self.types(f"public.{names}")["name"]),
                "id": new_id(names, kind, "min(n.name)"),
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
                    # An adopted table may have a name twice: the lowest id is used.
                    "insert into pg_temp.wanted"
                    " select distinct m.video_id, o.id from pg_temp.staged_names n join pg_temp.matched m using (line)"
                    " join (select distinct on (name) name, id from {names} order by name, id) o on o.name = {name}"
                    " where n.kind = {kind} and {scope}",
                    ANALYZE.format("pg_temp.wanted"),
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


def _no_list(cells: pl.Series, read: pl.Series) -> pl.Series:
    """Whether cells hold something that was read as no list."""
    given = texts(cells) if cells.dtype == pl.String else cells
    return (given.is_not_null() & read.is_null()).alias(f"{cells.name}_is_no_list")


def _as_json(lists: pl.Series) -> pl.Series:
    """Lists of texts as JSON, which PostgreSQL reads whatever they hold."""
    encoded = [None if each is None else json.dumps(each.to_list(), ensure_ascii=False) for each in lists]
    return pl.Series(encoded, dtype=pl.String)


def _cell_of_list(kind: str) -> str | None:
    """SQL of a staged list for a column of type ``kind``, an array or jsonb; None if the type cannot hold a list."""
    if kind == "jsonb":
        return "coalesce(s.{}, '[]')::jsonb"
    if kind.endswith("[]"):
        return f"array(select jsonb_array_elements_text(s.{{}}::jsonb))::{kind}"
    return None
