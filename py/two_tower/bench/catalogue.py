"""``two-tower bench catalogue``: a large catalogue, every video of it with an input, through the life of a version.

Beside each figure stands what the same takes in a catalogue of a thirtieth, with as few users. What costs what is
there (registering, filling, activating) is a sum over it; what costs what has changed is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from two_tower.bench.common import (
    VERSION,
    Connection,
    Figure,
    connect,
    make_catalogue,
    make_people,
    new_database,
    private_megabytes,
    register_random,
    schema_of,
    seconds,
)
from two_tower.lifecycle import registry
from two_tower.progress import Progress
from two_tower.rows import one
from two_tower.server.embedded import Server

DECISIONS = 30
"""Of each user."""
CHANGED = 1_000
"""Users who like one more, whom a refresh finds."""
SMALLER = 30
"""By how much the catalogue beside it is."""


@dataclass(frozen=True)
class Scale:
    """How much of it."""

    videos: int = 300_000
    users: int = 100_000

    @classmethod
    def quick(cls) -> Scale:
        return cls(videos=30_000, users=5_000)

    def smaller(self) -> Scale:
        return Scale(max(self.videos // SMALLER, 1_000), max(self.users // SMALLER, CHANGED))


def run(server: Server, scale: Scale, progress: Progress) -> list[Figure]:
    """Seconds and megabytes at ``scale``, beside a thirtieth of it."""
    baseline = _measure(server, scale.smaller(), lambda what, share: progress(what, share / 4))
    value = _measure(server, scale, lambda what, share: progress(what, 0.25 + 0.75 * share))
    return [
        Figure(name, value[name], baseline[name], value[name] / baseline[name], "MB" if name.endswith("_mb") else "s")
        for name in value
    ]


def _measure(server: Server, scale: Scale, progress: Progress) -> dict[str, float]:
    name = f"bench_catalogue_{scale.videos}"
    new_database(server, name)
    with connect(server, name) as connection:
        progress(f"building {scale.videos:,} videos and {scale.users:,} users", 0.0)
        make_catalogue(connection, scale.videos)
        make_people(connection, scale.users, DECISIONS, scale.videos)
        size = _megabytes(connection)
        found: dict[str, float] = {}
        progress("registering", 0.2)
        schema = schema_of(connection, scale.videos)
        found["register_s"] = seconds(lambda: register_random(connection, VERSION, schema))
        progress("counting everybody, once", 0.4)
        connection.execute("insert into two_tower.user_changes (user_id) select id from auth.users")
        found["first_refresh_s"] = seconds(lambda: connection.execute("call two_tower.refresh(null, '1 day')"))
        progress("filling and activating", 0.6)
        found["backfill_s"] = seconds(lambda: registry.backfill(connection, VERSION, lambda what, share: None))
        # Random weights pass no gate of quality.
        found["activate_s"] = seconds(
            lambda: registry.activate(connection, VERSION, lambda what, share: None, force=True)
        )
        found["version_mb"] = _megabytes(connection) - size
        progress("refreshing", 0.9)
        _like_one_more(connection)
        found[f"refresh_{CHANGED}_users_s"] = seconds(lambda: connection.execute("call two_tower.refresh()"))
        connection.execute(
            "update public.videos set maker = 'maker 0' where id = any (array(select public.ident('video', n) "
            "from generate_series(%s - 100, %s - 1) n))",
            (scale.videos, scale.videos),
        )
        found["refresh_100_videos_s"] = seconds(lambda: connection.execute("call two_tower.refresh()"))
        with connect(server, name) as fresh:
            fresh.execute("select 1")
            before = private_megabytes(fresh)
            user = one(fresh, "select id from auth.users order by id limit 1")
            fresh.execute("select two_tower.sum_users(array[%s], %s)", (user, VERSION))
            found["backend_mb"] = private_megabytes(fresh) - before
    return found


def _like_one_more(connection: Connection) -> None:
    """Each of the first users likes a video on which they have not decided."""
    connection.execute(
        """insert into public.user_video_decisions (user_id, video_id, decision_type)
        select u.id, v.id, 'like'
        from (select id from auth.users order by id limit %s) as u
        cross join lateral (
            select v.id from public.videos v
            where not exists (
                select from public.user_video_decisions d where d.user_id = u.id and d.video_id = v.id
            )
            limit 1
        ) as v""",
        (CHANGED,),
    )


def _megabytes(connection: Connection) -> float:
    size: Any = one(connection, "select pg_database_size(current_database())")
    return float(size) / 2**20
