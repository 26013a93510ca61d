"""Recommendations into a file, as ``two_tower.recommend_batch`` answers them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import psycopg

from two_tower.errors import UserError

_BATCH = 200
_QUERY = """
copy (
    select r.user_id, r.video_id, v.product_url, r.score, r.rank
    from two_tower.recommend_batch({}::uuid[], {}) r join public.videos v on v.id = r.video_id
    order by r.user_id, r.rank
) to stdout (format csv)
"""
HEADER = "user_id,video_id,product_url,score,rank\n"


def write(
    connection: psycopg.Connection[Any],
    users: list[str] | None,
    limit: int,
    output: Path,
    progress: Callable[[str, float], None],
) -> int:
    """Write the best ``limit`` videos of ``users`` (None: of everyone) to ``output``, CSV or Parquet by its extension.

    The number of rows. The file appears when it is complete. One snapshot, so one model version, answers all users.
    """
    if output.suffix not in (".csv", ".parquet"):
        raise UserError(f"cannot tell the format of {output.name}", "give a name that ends in .csv or .parquet")
    draft = output.with_name(output.name + ".part")
    rows = 0
    try:
        with connection.transaction(), draft.open("wb") as file:
            connection.execute("set transaction isolation level repeatable read, read only")
            if users is None:
                users = [str(u) for (u,) in connection.execute("select id from auth.users order by id")]
            else:
                _check(connection, users)
            file.write(HEADER.encode())
            for start in range(0, len(users), _BATCH):
                query = psycopg.sql.SQL(_QUERY).format(users[start : start + _BATCH], limit)
                with connection.cursor() as cursor:
                    with cursor.copy(query) as copy:
                        for block in copy:
                            file.write(block)
                    rows += cursor.rowcount
                progress("recommending", min(1.0, (start + _BATCH) / len(users)))
        if output.suffix == ".parquet":
            frame = pl.scan_csv(draft, schema_overrides={"score": pl.Float32, "rank": pl.Int32})
            parquet = draft.with_name(draft.name + "quet")
            frame.sink_parquet(parquet)
            parquet.replace(draft)
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
    return rows


def _check(connection: psycopg.Connection[Any], users: list[str]) -> None:
    for user in users:
        try:
            known = connection.execute("select from auth.users where id = %s", (UUID(user),)).fetchone()
        except ValueError:
            raise UserError(f"{user!r} is not a user id", "give a UUID") from None
        if known is None:
            raise UserError(f"there is no user {user}")
