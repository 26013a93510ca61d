"""Writes recommendations of ``two_tower.recommend_batch`` to a file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import psycopg

from two_tower.database import SNAPSHOT, another, is_pooled
from two_tower.errors import UserError
from two_tower.progress import Progress
from two_tower.rows import one
from two_tower.writing import writing

_BATCH = 200
_QUERY = """
copy (
    select r.user_id, r.video_id, v.product_url, r.score, r.rank
    from two_tower.recommend_batch({}::uuid[], {}) r join public.videos v on v.id = r.video_id
    order by r.user_id, r.rank
) to stdout (format csv)
"""
HEADER = b"user_id,video_id,product_url,score,rank\n"


def write(
    connection: psycopg.Connection[Any],
    users: list[str] | None,
    limit: int,
    output: Path,
    progress: Progress,
    workers: int | None = None,
) -> int:
    """Write the best ``limit`` videos of ``users`` (None: of everyone) to ``output``, CSV or Parquet by its extension.

    Returns the number of rows. The file appears when it is complete. All ``workers`` connections share one snapshot, so
    all lists are of one model version. By default there is one for each processor here, at most 4; through a pooler
    only one, since each takes a connection from the application's pool until the end.
    """
    if workers is None:
        workers = 1 if is_pooled(connection) else min(4, os.cpu_count() or 1)
    if output.suffix not in (".csv", ".parquet"):
        raise UserError(f"cannot tell the format of {output.name}", "give a name that ends in .csv or .parquet")
    drafts = [output.with_name(f"{output.name}.part{n}") for n in range(workers)]
    try:
        with writing(output), _snapshot(connection, workers) as connections, ThreadPoolExecutor(workers) as pool:
            if users is None:
                users = [str(u) for (u,) in connection.execute("select id from auth.users order by id")]
            else:
                _check(connection, users)
            total, done = max(1, len(users)), 0

            def some(one: psycopg.Connection[Any], draft: Path, first: int, last: int) -> int:
                """Writes the users from ``first`` to before ``last``; returns the number of rows."""
                nonlocal done
                rows = 0
                with draft.open("wb") as file, one.cursor() as cursor:
                    file.write(HEADER if draft == drafts[0] else b"")
                    for start in range(first, last, _BATCH):
                        batch = users[start : min(start + _BATCH, last)]
                        with cursor.copy(psycopg.sql.SQL(_QUERY).format(batch, limit)) as copy:
                            for block in copy:
                                file.write(block)
                        rows += cursor.rowcount
                        done += len(batch)
                        progress("recommending", done / total)
                return rows

            ends = [len(users) * n // workers for n in range(workers + 1)]
            rows = sum(pool.map(some, connections, drafts, ends[:-1], ends[1:]))
        with writing(output), drafts[0].open("ab") as file:
            for draft in drafts[1:]:
                with draft.open("rb") as more:
                    shutil.copyfileobj(more, file)
        if output.suffix == ".parquet":
            frame = pl.scan_csv(drafts[0], schema_overrides={"score": pl.Float32, "rank": pl.Int32})
            parquet = drafts[0].with_suffix(".parquet")
            with writing(output):
                frame.sink_parquet(parquet)
                parquet.replace(drafts[0])
        with writing(output):
            drafts[0].replace(output)
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)
    return rows


@contextmanager
def _snapshot(connection: psycopg.Connection[Any], workers: int) -> Iterator[list[psycopg.Connection[Any]]]:
    """``connection`` and ``workers - 1`` others, in transactions that see the same."""
    others = [another(connection) for _ in range(workers - 1)]
    try:
        with connection.transaction():
            connection.execute(SNAPSHOT)
            if others:
                exported = one(connection, "select pg_export_snapshot()")
                for other in others:
                    other.execute("begin isolation level repeatable read, read only")
                    other.execute(psycopg.sql.SQL("set transaction snapshot {}").format(exported))
            yield [connection, *others]
    finally:
        for other in others:
            other.close()


def _check(connection: psycopg.Connection[Any], users: list[str]) -> None:
    for user in users:
        try:
            known = connection.execute("select from auth.users where id = %s", (UUID(user),)).fetchone()
        except ValueError:
            raise UserError(f"{user!r} is not a user id", "give a UUID") from None
        if known is None:
            raise UserError(f"there is no user {user}")
