"""Star reviews by reviewers who need not be users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import polars as pl
import psycopg
from psycopg import sql

from two_tower.data.imports.cells import TIMES, stars
from two_tower.data.imports.feedback import Feedback
from two_tower.data.imports.hashes import Repeats, hash_uuids
from two_tower.data.imports.task import Import


class Reviews(Feedback):
    name = "reviews"
    analyze = "analyze two_tower.reviews"
    required = (("product_url",), ("reviewer_id",), ("stars",))
    optional = TIMES
    user_column = "reviewer_id"
    value_column = "stars"
    shown = "t.value"

    def __init__(self, task: Import, cursor: psycopg.Cursor[Any], columns: list[str]) -> None:
        super().__init__(task, cursor, columns)
        self.indexes: list[str] = []
        self.repeats = Repeats()
        self.copied = 0
        self.direct = self.claim_empty_table()

    @staticmethod
    def order(columns: list[str]) -> tuple[str, str, str]:
        return columns[0], columns[1], columns[2]

    def values(self, label: pl.Series) -> tuple[pl.Series, str]:
        return stars(label, self.task.scale), f"not a number from 0 to {self.task.scale:g}"

    def claim_empty_table(self) -> bool:
        """Locks an empty table for this import and drops its indexes, if the role may.

        The first import is the largest. Rows that are copied directly into their table, which is indexed afterwards,
        take a fifth of the time of rows that are staged, sorted and inserted; checking the foreign key once for all
        takes a twentieth of the time of checking each row. Nobody needs the empty table meanwhile.
        """
        may = (
            "select pg_has_role(relowner, 'usage') and has_parameter_privilege('session_replication_role', 'set')"
            " and not exists (select from two_tower.reviews) from pg_class where oid = 'two_tower.reviews'::regclass"
        )
        # The lock by reading the table is released before the exclusive one is requested, or two would deadlock.
        with self.cursor.connection.transaction(force_rollback=True):
            empty = self.one(may)[0]
        if empty:
            with self.cursor.connection.transaction() as claim:
                self.cursor.execute("lock table two_tower.reviews in access exclusive mode")
                empty = self.one(may)[0]
                if not empty:
                    raise psycopg.Rollback(claim)
        if not empty:
            return False
        # A new table file is filled from start to end, so the order of ctid is that of the rows.
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
        repeated = self.repeats.among(hash_uuids(values["user"]) + 3 * hash_uuids(values["video"]))
        if repeated.any():
            self.copy_binary("pg_temp.repeated", {name: values[name][repeated] for name in ("user", "video")})

    def merge(self) -> None:
        if self.direct:
            self.finish_table()
        else:
            self.merge_staged()

    def finish_table(self) -> None:
        """Restores the indexes and constraints of the table, which already has the rows."""
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
        # Reviews of videos deleted meanwhile are removed; from here on, no video can be deleted.
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
        # If the role may not read users, finish() links them, which writes such rows twice.
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
