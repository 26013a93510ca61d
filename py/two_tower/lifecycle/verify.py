"""``two-tower verify``: what refreshes have stored, against what the rows say now."""

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
    """How many users and videos were compared, and who differs, by kind."""

    users: int = 0
    videos: int = 0
    features: set[UUID] = field(default_factory=set)
    user_vectors: set[UUID] = field(default_factory=set)
    video_vectors: set[UUID] = field(default_factory=set)
    tastes: set[UUID] = field(default_factory=set)

    @property
    def differing(self) -> dict[str, int]:
        """How many differ, by kind."""
        return {
            "features": len(self.features),
            "user_vectors": len(self.user_vectors),
            "video_vectors": len(self.video_vectors),
            "tastes": len(self.tastes),
        }


def verify(connection: psycopg.Connection[Any], progress: Progress, sample: int | None = None) -> Verified:
    """Compare everybody and every video, or ``sample`` of each, drawn anew at every call.

    ``connection`` is in autocommit mode. What waits in the change log, or is set aside, is left out.
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
    """Put those who differ into the change log, for the next refresh; how many users and videos."""
    marked = 0
    for kind, ids in (
        ("video", found.video_vectors | found.tastes),
        ("user", found.features | found.user_vectors),
    ):
        if ids:
            marked += _one(connection, "select two_tower.mark_changes(%s, %s)", kind, sorted(ids))
    return marked


def log(connection: psycopg.Connection[Any], answer: dict[str, Any]) -> None:
    """Note that everything was compared, and what came of it: what a sample had found is settled then."""
    connection.execute("select two_tower.log_verified(%s)", (Jsonb({**answer, "whole": True}),))


def _drawn(connection: psycopg.Connection[Any], kind: str, sample: int) -> list[UUID]:
    """``sample`` ids, or all where there are fewer: of those who should be stored, and of those who are."""
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
