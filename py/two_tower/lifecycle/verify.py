"""``two-tower verify``: compare what refreshes have stored with what the rows say now."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    import psycopg

    from two_tower.progress import Progress

BATCH = 500
"""Users or videos that are compared in one statement, which is one snapshot."""


@dataclass
class Verified:
    """Numbers of users and videos compared, and those that differ, by kind."""

    users: int = 0
    videos: int = 0
    features: set[UUID] = field(default_factory=set)
    user_vectors: set[UUID] = field(default_factory=set)
    video_vectors: set[UUID] = field(default_factory=set)
    tastes: set[UUID] = field(default_factory=set)

    @property
    def differing(self) -> dict[str, int]:
        """Numbers that differ, by kind."""
        return {
            "features": len(self.features),
            "user_vectors": len(self.user_vectors),
            "video_vectors": len(self.video_vectors),
            "tastes": len(self.tastes),
        }


def verify(connection: psycopg.Connection[Any], progress: Progress, sample: int | None = None) -> Verified:
    """Compare all users and videos, or a random ``sample`` of each.

    ``connection`` is in autocommit mode. Pending changes and failures that were set aside are left out.
    """
    found = Verified()
    total = sample or _one(connection, "select count(*) from two_tower.liking_users()")
    for kind, vectors in (("video", found.video_vectors), ("user", found.user_vectors)):
        ids = _drawn(connection, kind, sample) if sample else None
        after: UUID | None = None
        while True:
            row = connection.execute(
                "select last_id, seen, features, vectors, tastes from two_tower.verify_batch(%s, %s, %s, %s)",
                (kind, after, BATCH, ids[:BATCH] if ids is not None else None),
            ).fetchone()
            assert row is not None
            after, seen, features, differing, tastes = row
            vectors.update(differing)
            found.features.update(features)
            found.tastes.update(tastes)
            if kind == "user":
                found.users += seen
                progress("verify", min(found.users / max(total, 1), 1.0))
            else:
                found.videos += seen
            if ids is not None:
                ids = ids[BATCH:]
            if not (after if ids is None else ids):
                break
    return found


def repair(connection: psycopg.Connection[Any], found: Verified) -> int:
    """Log a change of all that differ, for the next refresh; returns the numbers of users and videos."""
    marked = 0
    for kind, ids in (
        ("video", found.video_vectors | found.tastes),
        ("user", found.features | found.user_vectors),
    ):
        if ids:
            marked += _one(connection, "select two_tower.mark_changes(%s, %s)", kind, sorted(ids))
    return marked


def log(connection: psycopg.Connection[Any], answer: dict[str, Any]) -> None:
    """Record a full comparison and its result, which replaces the findings of samples."""
    connection.execute("select two_tower.log_verified(%s)", (Jsonb({**answer, "whole": True}),))


def _drawn(connection: psycopg.Connection[Any], kind: str, sample: int) -> list[UUID]:
    """``sample`` ids, or all if there are fewer: of rows that should be stored, and of rows that are."""
    source = (
        """select liking_users as id from two_tower.liking_users()
        union select user_id from two_tower.user_features
        union select u.id from unnest(two_tower.live_versions()) as v (version)
            cross join lateral two_tower.users_by_profile(v.version) as u (id)"""
        if kind == "user"
        else "select id from public.videos"
    )
    query = f"select id from ({source}) as k order by random() limit %s"  # noqa: S608 - of two that are written here
    rows = connection.execute(query.encode(), (sample,))
    return [row[0] for row in rows]


def _one(connection: psycopg.Connection[Any], query: str, *values: Any) -> int:
    row = connection.execute(query.encode(), values).fetchone()
    assert row is not None
    return int(row[0])
