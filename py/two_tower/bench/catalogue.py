"""``two-tower bench catalogue``: a large catalogue, in which every video has an input, through the life of a version.

Each figure has as its baseline the same work in a catalogue of a thirtieth, with a thirtieth of the users. Registering,
filling and activating cost in proportion to the catalogue; a refresh costs in proportion to what changed. Bytes per row
are those of the whole table or index divided by its rows (docs/scaling.md).

If asked for, the index is also built alone, with and without parallel workers, once with ``maintenance_work_mem`` that
holds it and once with a quarter of that: a graph that does not fit is completed on disk pages.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
"""By how much the baseline's catalogue is smaller."""
WORKERS = 2
"""Parallel workers beside the process that builds an index, if there are any."""
IN_MEMORY = 2.5
"""The most memory that an index's graph takes, relative to its pages."""
_SIZES = """
with videos as (
    select pg_total_relation_size('two_tower.video_embeddings_1') as bytes,
        pg_relation_size(%(index)s::regclass) as graph, (select count(*) from two_tower.video_embeddings_1) as rows
)
select s.name, s.bytes::float8 / s.rows
from (
    select 'video_vector' as name, v.bytes - v.graph as bytes, v.rows from videos v
    union all
    select 'video_index', v.graph, v.rows from videos v
    union all
    select 'video_taste', pg_total_relation_size('two_tower.video_tastes_1'), count(*) from two_tower.video_tastes_1
    union all
    select 'user_vector', pg_total_relation_size('two_tower.user_embeddings_1'), count(*)
    from two_tower.user_embeddings_1
    union all
    select 'user_features', pg_total_relation_size('public.user_features'), count(*) from public.user_features
    union all
    select 'decision', pg_total_relation_size('public.user_video_decisions'), count(*)
    from public.user_video_decisions
) as s
where s.rows > 0
"""
INDEX = "two_tower.video_embeddings_1_hnsw"
"""Of the first version that a database has."""


@dataclass(frozen=True)
class Scale:
    """How much of it."""

    videos: int = 300_000
    users: int = 100_000
    index_builds: bool = False
    """Whether the index is built again, in four ways."""

    @classmethod
    def quick(cls) -> Scale:
        return cls(videos=30_000, users=5_000)

    def smaller(self) -> Scale:
        return replace(self, videos=max(self.videos // SMALLER, 1_000), users=max(self.users // SMALLER, CHANGED))


def run(server: Server, scale: Scale, progress: Progress) -> list[Figure]:
    """Seconds and megabytes at ``scale``, with a thirtieth of it as the baseline."""
    baseline = _measure(server, scale.smaller(), lambda what, share: progress(what, share / 4))
    value = _measure(server, scale, lambda what, share: progress(what, 0.25 + 0.75 * share))
    return [Figure(name, value[name], baseline[name], value[name] / baseline[name], _unit(name)) for name in value]


def _unit(name: str) -> str:
    return "MB" if name.endswith("_mb") else "bytes" if name.startswith("bytes_") else "s"


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
        # Random weights would not pass the quality gate.
        found["activate_s"] = seconds(
            lambda: registry.activate(connection, VERSION, lambda what, share: None, force=True)
        )
        found["version_mb"] = _megabytes(connection) - size
        connection.execute("vacuum (analyze)")
        found |= bytes_per_row(connection)
        if scale.index_builds:
            progress("building the index again", 0.8)
            found |= index_builds(connection)
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


def bytes_per_row(connection: Connection) -> dict[str, float]:
    """``bytes_per_…`` → bytes on disk per row of each kind, including the table's overhead."""
    return {f"bytes_per_{name}": size for name, size in connection.execute(_SIZES, {"index": INDEX})}


def index_builds(connection: Connection) -> dict[str, float]:
    """``index_…_s`` → seconds, with the least ``maintenance_work_mem`` that holds the index and a quarter of that, by
    one process and by :data:`WORKERS` more."""
    definition = one(connection, "select pg_get_indexdef(%s::regclass)", (INDEX,))
    pages = one(connection, "select pg_relation_size(%s::regclass)", (INDEX,))
    holds = max(int(IN_MEMORY * pages / 1024), 4096)
    found = {}
    for label, kilobytes in (("held", holds), ("quarter", max(holds // 4, 1024))):
        for workers in (0, WORKERS):
            connection.execute(f"drop index {INDEX}".encode())
            connection.execute(
                f"""set maintenance_work_mem = '{kilobytes}kB'; set max_parallel_maintenance_workers = {workers};
                set min_parallel_table_scan_size = 0""".encode()
            )
            name = f"index_{label}_s" if not workers else f"index_{label}_{workers}_workers_s"
            found[name] = seconds(lambda: connection.execute(definition.encode()))
    connection.execute("reset all")
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
