"""``two-tower model upload-vectors``: a version of vectors that were computed elsewhere, without towers.

Refreshes, verify and coverage skip it, since without a tower its vectors cannot follow likes. Deletions do apply.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl
import psycopg
from psycopg.types.json import Jsonb

from two_tower.data.files import parquet_errors, plain
from two_tower.data.imports.cells import ids
from two_tower.data.table import shown_names
from two_tower.errors import UserError
from two_tower.features import DIM
from two_tower.ids import UUID_PATTERN, user_uuid
from two_tower.lifecycle import registry
from two_tower.progress import Progress
from two_tower.rows import one

BATCH = 2_000
"""Vectors of one call."""

_ADD = "select two_tower.add_given(%s, %s, %s, %s::text[]::extensions.halfvec[])"


@dataclass(frozen=True)
class Uploaded:
    """What an upload did, or would do."""

    version: str
    videos: int
    """Vectors of videos that were taken."""
    unknown_videos: int
    """Vectors of videos that the database does not have, which are left out."""
    videos_without: int
    """Videos without a vector; lists do not show them."""
    users: int
    unknown_users: int
    users_without: int
    """Users with likes and without a vector; they are shown popular videos."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def upload(
    connection: psycopg.Connection[Any],
    videos: Path,
    users: Path | None,
    version: str | None,
    progress: Progress,
    *,
    dry_run: bool = False,
) -> Uploaded:
    """Make a staged version from the vectors in these Parquet files, in one transaction; with ``dry_run`` roll it back.

    Vectors are scaled to length 1. Raises UserError if a file cannot be read, or a vector does not have :data:`DIM`
    numbers or cannot be scaled; ``connection`` is in autocommit mode.
    """
    name = version or registry.new_version(connection)
    registry.require_version_name(name)
    given = {"video": read(videos, "video_id"), "user": read(users, "user_id") if users else None}
    meta = {
        "version": name,
        "given": True,
        "given_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "dim": DIM,
        "vectors": {kind: 0 if frame is None else frame.height for kind, frame in given.items()},
    }
    with connection.transaction(force_rollback=dry_run):
        connection.execute("select two_tower.stage_given(%s, %s)", (name, Jsonb(meta)))
        taken = dict.fromkeys(given, 0)
        for kind, frame in given.items():
            for at, (ids, vectors) in enumerate(_batches(frame)):
                progress(f"uploading {kind}s", min(1.0, at * BATCH / max(1, 0 if frame is None else frame.height)))
                taken[kind] += int(one(connection, _ADD, (name, kind, ids, vectors)))
        if not taken["video"]:
            raise UserError(
                f"none of the videos of {videos} is in the database", "video_id must be ids of public.videos"
            )
        progress("indexing", 1.0)
        connection.execute("select two_tower.close_given(%s)", (name,))
        missing = connection.execute("select videos, users from two_tower.gate_coverage(%s)", (name,)).fetchone()
    assert missing is not None
    video_rows, user_rows = (0 if frame is None else frame.height for frame in given.values())
    return Uploaded(
        name,
        videos=taken["video"],
        unknown_videos=video_rows - taken["video"],
        videos_without=missing[0],
        users=taken["user"],
        unknown_users=user_rows - taken["user"],
        users_without=missing[1],
    )


def read(path: Path, key: str) -> pl.DataFrame:
    """``id`` (UUID as text) and ``embedding`` [DIM] of a Parquet file; the last one for a repeated id.

    Raises UserError if a vector is incomplete.
    """
    with parquet_errors(str(path)):
        frame = pl.read_parquet(path, glob=False)
    for name in (key, "embedding"):
        if name not in frame.columns:
            raise UserError(f"{path} has no column {name}", f"it has {shown_names(frame.columns)}")
    kind = frame.schema["embedding"]
    if not isinstance(kind, pl.List | pl.Array) or not kind.inner.is_numeric():
        raise UserError(f"{path}: embedding is {kind}, and must be lists of {DIM} numbers")
    listed = frame.select(
        ids(plain(str(path), frame[key])).alias("id"),
        pl.col("embedding").cast(pl.List(pl.Float32)).alias("embedding"),
    )
    _refuse(listed, listed["id"].is_null() | (listed["id"] == ""), path, f"has no {key}")
    if key == "user_id":
        listed = listed.with_columns(pl.col("id").map_elements(lambda text: str(user_uuid(text)), pl.String))
    else:
        _refuse(listed, ~listed["id"].str.contains(UUID_PATTERN), path, f"has a {key} that is no UUID")
    _refuse(listed, listed["embedding"].list.len().ne_missing(DIM), path, f"has no vector of {DIM} numbers")
    whole = listed.with_columns(pl.col("embedding").list.to_array(DIM)).unique("id", keep="last", maintain_order=True)
    vectors = whole["embedding"].to_numpy().astype(np.float64)
    size = np.linalg.norm(vectors, axis=1) if whole.height else np.zeros(0)
    _refuse(whole, pl.Series(~(np.isfinite(size) & (size > 0))), path, "has a vector without a direction")
    return whole


def _refuse(frame: pl.DataFrame, where: pl.Series, path: Path, what: str) -> None:
    found = where.arg_true()
    if len(found):
        row = int(found[0])
        raise UserError(f"{path}: row {row + 1} ({frame[row, 'id']}) {what}; of such rows there are {len(found)}")


def _batches(frame: pl.DataFrame | None) -> Iterator[tuple[list[UUID], list[str]]]:
    """Ids and vectors as text, scaled to length 1, so that half precision can represent them."""
    for part in frame.iter_slices(BATCH) if frame is not None else ():
        vectors = part["embedding"].to_numpy().astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        yield [UUID(text) for text in part["id"]], [f"[{','.join(f'{x:.6g}' for x in vector)}]" for vector in vectors]
