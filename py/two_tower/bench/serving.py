"""``two-tower bench serving``: recommendations against the fastest bare query, in one run, at growing catalogues.

That query uses the same index, has the same exclusions and no neighbours, and is the fastest of a sweep of
``ef_search``, with and without iterative scans, that finds 0.99 of the nearest twenty. Recommendations are measured
with the towers alone and with neighbours; recall is against exact search by the same score.

Vectors resemble those of this repository's models. They are written directly, without a model, since serving reads only
stored vectors. Their directions are clustered: there are a thousand centres of unequal size with noise around them,
users are near a few of them, and the spread over dimensions is that of learned vectors. Popular videos are long; the
others have most of their length in the last dimension, where users have none. The index is built longest first.
Everybody has decided on popular videos, so that exclusions remove top results. The number and weights of neighbours
are those that the defaults chose for 40,981 places with 27 likes each (docs/experiments.md); a video's neighbours are
of its own cluster.

Other lists are measured in alternation with the plain one: with filters that a tenth and a thousandth of the
videos pass; with a thousand popular videos excluded; ``next_videos`` of users who were shown a
thousand; and ``recommend_from`` with a session of twenty likes.
"""

from __future__ import annotations

import hashlib
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
from psycopg import sql

from two_tower.bench.common import (
    VERSION,
    Connection,
    Figure,
    connect,
    make_catalogue,
    make_model,
    new_database,
    no_triggers,
)
from two_tower.features import DIM
from two_tower.lifecycle.tower_rows import store_neighbours
from two_tower.neighbours import Neighbours
from two_tower.progress import Progress
from two_tower.rows import one, row
from two_tower.server.embedded import Server

K = 20
USERS = 1_000
DECISIONS = 100
"""Of each user, all of them excluded from the answer."""
NEIGHBOURS = 50
"""Of each video, if there are any: the number that the defaults chose for the places."""
LEAST_RECALL = 0.99
SWEEP = (20, 40, 80, 120, 160, 200, 280, 400, 560, 800, 1000)
"""Values of hnsw.ef_search that the bare query is tried with."""

# A row of COPY's binary format: model_version, id, and embedding as halfvec_send has it.
_ROW = np.dtype(
    [
        ("fields", ">i2"),
        *(("l0", ">i4"), ("version", f"S{len(VERSION)}")),
        *(("l1", ">i4"), ("id", "V16")),
        *(("l2", ">i4"), ("dim", ">i2"), ("none", ">i2"), ("v", ">f2", DIM)),
    ]
)
# Vectors as the trainer's defaults learn them on the data set of docs/experiments.md. First, share of the videos that
# are longer, and length without the last dimension; then, how much of the directions' variance the first axes hold.
_SHARES = (0, 0.0003, 0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1)
_LENGTHS = (0.999, 0.883, 0.830, 0.719, 0.572, 0.477, 0.338, 0.230, 0.128, 0.081, 0.044, 0.031, 0.022, 0.010)
_AXES = (0, 1, 2, 4, 8, 16, 32, 64, 96, DIM - 1)
_VIDEO_SPREAD = (0, 0.091, 0.153, 0.227, 0.333, 0.464, 0.624, 0.819, 0.934, 1)
_USER_SPREAD = (0, 0.033, 0.060, 0.109, 0.186, 0.299, 0.467, 0.713, 0.891, 1)
# From the defaults on the places of docs/experiments.md: weights of a video's neighbours by their rank, and the
# length of the sum of a user with DECISIONS likes. Neighbours are drawn from the video's cluster by a power such that
# a user's 5,000 are about 2,500 distinct videos, of which the best gain a quarter of a cosine, as measured there.
_RANKS = (0, 1, 2, 4, 9, 19, 29, 39, 49)
_WEIGHTS = (2.50, 2.09, 1.89, 1.64, 1.30, 0.99, 0.81, 0.69, 0.59)
_LENGTH = 89
_POWER = 4
_BLOCK = 50_000
"""Rows in memory at a time."""
_MORE_VIDEOS = """
insert into public.videos (id, product_url, title, published_at)
select md5('video' || n)::uuid, 'https://videos.example/' || n, 'Title ' || n, timestamptz '2025-01-01'
from generate_series(2000, %s - 1) n
"""
_CARRIED = [
    # Spread over the ranks by popularity.
    """update public.videos v set maker = 'maker ' || n %% 997, price = (n * 7919::bigint) %% 10000
    from generate_series(0, %(size)s - 1) n where v.id = md5('video' || n)::uuid""",
    "insert into public.tags (id, name) select md5(t)::uuid, t from unnest(array['tenth', 'thousandth']) t",
    """insert into public.video_tags (video_id, tag_id)
    select md5('video' || n)::uuid, md5('tenth')::uuid from generate_series(3, %(size)s - 1, 10) n
    union all
    select md5('video' || n)::uuid, md5('thousandth')::uuid from generate_series(5, %(size)s - 1, 1000) n""",
]
"""The attributes that filters use. Their baseline reads none of them."""
_SHOWN = """
insert into two_tower.impressions (user_id, list_id, video_id, rank, reason)
select u.id::uuid, md5('list')::uuid, md5('video' || n)::uuid, 1, 'taste'
from unnest(%s::text[]) as u (id) cross join generate_series(0, 999) n
"""
_LISTS = {
    "filtered": "select * from recommend_videos(20, tag_ids => array[md5('tenth')::uuid])",
    "filtered_few": "select * from recommend_videos(20, tag_ids => array[md5('thousandth')::uuid])",
    "filtered_maker": "select * from recommend_videos(20, makers => array['maker 5'])",
    "filtered_range": "select * from recommend_videos(20, price_max => 999)",
    "filtered_range_few": "select * from recommend_videos(20, price_min => 5000, price_max => 5009)",
    "excluded_1000": "select * from recommend_videos(20, exclude => %(shown)s::uuid[])",
    # Any videos are easily passed over; these are where the search begins.
    "excluded_best_200": "select * from recommend_videos(20, exclude => %(best)s::uuid[])",
    "recommend_from": "select * from recommend_from(%(liked)s::uuid[])",
    # Last, since it writes.
    "next_videos": "select * from next_videos(20)",
}
"""The lists that are compared with the plain one."""
_PEOPLE = "insert into auth.users (id) select md5('user' || n)::uuid from generate_series(0, %s - 1) n"
_DECIDED = """
insert into public.user_video_decisions (user_id, video_id, decision_type)
select u.user_id, n.video_id, 'like'
from two_tower.user_embeddings u
cross join lateral (
    select e.video_id
    from generate_series(0, 1999) n
    join two_tower.video_embeddings e on e.model_version = u.model_version and e.video_id = md5('video' || n)::uuid
    order by (e.embedding operator(extensions.<=>) u.embedding) + 0 limit %s
) n
"""
_EXACT = """
select video_id from two_tower.video_embeddings
where model_version = %(version)s and video_id <> all (%(seen)s)
order by (embedding operator(extensions.<=>) %(vector)s::extensions.halfvec) + 0, video_id limit 20
"""
# Hashed: "<> all (array)" compares element by element.
_BARE = """
select video_id from two_tower.video_embeddings
where model_version = %(version)s and placed and video_id not in (select unnest(%(seen)s::uuid[]))
order by embedding operator(extensions.<=>) %(vector)s::extensions.halfvec limit 20
"""


def run(server: Server, sizes: Sequence[int], seconds: float, progress: Progress) -> Iterator[Figure]:
    """Each figure when it is there, at each number of videos in ``sizes``; ``seconds`` is how long throughput is
    measured."""
    for at, size in enumerate(sizes):
        progress(f"building {size:,} videos and their index", at / len(sizes))
        with _Database(server, size) as database:
            connection, users = database.connection, database.users
            progress(f"serving from {size:,} videos", (at + 0.6) / len(sizes))
            name = f"{size // 1_000_000}m" if size % 1_000_000 == 0 else f"{size // 1000}k"
            bare = _fastest(connection, users[:60])
            for label in (name, f"neighbours_{name}"):
                if label != name:
                    _write_neighbours(connection, database.clusters)
                connection.execute("select two_tower.tune_search(%s)", (VERSION,))
                yield _recall(connection, users[:300], label)
                yield from _latency(connection, users, bare, label)
                for clients in (2, 16):
                    yield _throughput(server, connection, users, clients, seconds, bare, label)
                yield _batch(connection, users, label)
                yield from _lists(connection, users[:250], label)


class _Database:
    """A database with ``size`` videos, dropped at the end of the ``with`` block."""

    def __init__(self, server: Server, size: int) -> None:
        self.server, self.size, self.name = server, size, f"serving_{size}"

    def __enter__(self) -> _Database:
        new_database(self.server, self.name)
        self.connection = connect(self.server, self.name)
        connection, size = self.connection, self.size
        # The model is registered with a small catalogue; the large one is added by COPY.
        make_catalogue(connection, 2_000)
        make_model(connection, known_videos=1_000)
        with no_triggers(connection):
            connection.execute(_MORE_VIDEOS, (size,))
            for statement in _CARRIED:
                connection.execute(statement.encode(), {"size": size})
            connection.execute("truncate two_tower.video_embeddings, two_tower.user_embeddings")
            index = one(connection, "select pg_get_indexdef('two_tower.video_embeddings_1_hnsw'::regclass)")
            connection.execute("drop index two_tower.video_embeddings_1_hnsw")
            rng = np.random.default_rng(0)
            centres = rng.normal(size=(1_000, DIM - 1))
            weight = rng.zipf(1.6, size=1_000).clip(max=200).astype(float)
            clusters: list[np.ndarray] = []

            def videos(ranks: np.ndarray) -> np.ndarray:
                """float32 [n, DIM], of unit length, for ranks by popularity [n]."""
                chosen = rng.choice(1_000, len(ranks), p=weight / weight.sum())
                clusters.append(chosen)
                near = centres[chosen] + 0.7 * rng.normal(size=(len(ranks), DIM - 1))
                lengths = np.interp(ranks / size, _SHARES, _LENGTHS)[:, None]
                return np.hstack([_unit(near * _scales(_VIDEO_SPREAD)) * lengths, np.sqrt(1 - lengths**2)])

            def tastes(ranks: np.ndarray) -> np.ndarray:
                near = _unit(centres[rng.choice(1_000, (len(ranks), 3))].sum(axis=1)) * DIM**0.5
                directions = _unit((near + 0.5 * rng.normal(size=near.shape)) * _scales(_USER_SPREAD))
                return np.pad(directions, ((0, 0), (0, 1)))

            _copy(connection, "video", size, videos)
            self.users = _copy(connection, "user", USERS, tastes)
            self.clusters = np.concatenate(clusters)
            connection.execute(_PEOPLE, (USERS,))
            connection.execute("vacuum (analyze) public.videos, public.video_tags")
            connection.execute(_DECIDED, (DECISIONS,))
            connection.execute("update two_tower.user_embeddings set length = %s", (_LENGTH,))
        # Lists for visitors say little about videos that few people like, so these get likes.
        connection.execute("select two_tower.update_popularity()")
        # Enough to hold the graph; otherwise the build is many times slower.
        memory = f"{max(64, size // 600)}MB"
        connection.execute(f"set maintenance_work_mem = '{memory}'; set max_parallel_maintenance_workers = 2".encode())
        connection.execute(index)
        for table in ("public.user_video_decisions", "two_tower.user_embeddings_1", "two_tower.video_embeddings_1"):
            connection.execute(f"analyze {table}".encode())
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        with psycopg.connect(self.server.dsn, autocommit=True) as admin:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(self.name)))


def _write_neighbours(connection: Connection, clusters: np.ndarray) -> None:
    """Gives each video neighbours, bypassing a version's guards; ``clusters`` [videos]: to which each belongs."""
    size, rng = len(clusters), np.random.default_rng(1)
    # The members of each cluster side by side, the most popular first.
    members = np.argsort(clusters, kind="stable")
    firsts, ends = (np.searchsorted(clusters[members], clusters, side=side) for side in ("left", "right"))
    values = np.interp(np.arange(NEIGHBOURS), _RANKS, _WEIGHTS).astype(np.float32)
    connection.execute("set session_replication_role = replica")
    columns, ranks = [], []
    for first in range(0, size, _BLOCK):
        block = np.arange(first, min(first + _BLOCK, size))
        drawn = rng.random((len(block), NEIGHBOURS)) ** _POWER
        chosen = members[firsts[block, None] + (drawn * (ends - firsts)[block, None]).astype(int)]
        for each in chosen:
            different, rank = np.unique(each, return_index=True)
            columns.append(different)
            ranks.append(rank)
    starts = np.cumsum([0, *map(len, columns)])
    found = Neighbours(starts, np.concatenate(columns).astype(np.int32), values[np.concatenate(ranks)])
    store_neighbours(connection, VERSION, [str(UUID(bytes=each)) for each in _ids("video", size)], found)
    connection.execute("set session_replication_role = origin")
    connection.execute("update two_tower.model_versions set with_neighbours = %s where version = %s", (size, VERSION))
    connection.execute("analyze two_tower.neighbour_lists")


def _recall(connection: Connection, users: list[str], name: str) -> Figure:
    """Share of the exact best twenty, exclusions applied, that lists hold; the baseline is one."""
    value = one(
        connection,
        """select sum(two_tower.count_hits(x.exact, array(
                select r.score from two_tower.rank_videos(u.user_id, %(k)s) r order by r.rank
            )))::float8 / sum(cardinality(x.exact))
        from two_tower.user_embeddings u
        cross join lateral two_tower.history_of(u.user_id, %(version)s) h
        cross join lateral two_tower.exact_scores(
            %(version)s, u.embedding, %(k)s, h.decided, h.liked, h.weights, u.length
        ) x (exact)
        where u.model_version = %(version)s and u.user_id = any (%(users)s::uuid[])""",
        {"k": K, "version": VERSION, "users": users},
    )
    return Figure(f"recall_at_20_{name}", value, 1.0, value, "share")


Bare = tuple[int, str]
"""hnsw.ef_search and hnsw.iterative_scan of the bare query."""


def _set(connection: Connection, bare: Bare) -> None:
    connection.execute(f"set hnsw.ef_search = {bare[0]}; set hnsw.iterative_scan = {bare[1]}".encode())


def _fastest(connection: Connection, users: list[str]) -> Bare:
    """The settings with which the bare query is fastest, of those with enough recall; the widest if none has."""
    asked = [_question(connection, user) for user in users]
    exact = [{row[0] for row in connection.execute(_EXACT, question)} for question in asked]
    good: list[tuple[float, Bare]] = []
    for way in ("off", "relaxed_order"):
        for ef in SWEEP:
            _set(connection, (ef, way))
            hits, times = 0, []
            for question, best in zip(asked, exact, strict=True):
                started = time.perf_counter()
                found = connection.execute(_BARE, question).fetchall()
                times.append(time.perf_counter() - started)
                hits += len(best & {row[0] for row in found})
            if hits >= LEAST_RECALL * sum(len(best) for best in exact):
                good.append((statistics.median(times), (ef, way)))
    return min(good)[1] if good else (SWEEP[-1], "relaxed_order")


def _latency(connection: Connection, users: list[str], bare: Bare, name: str) -> list[Figure]:
    """recommend_videos, signed in as the user, against the fastest bare query, one by one.

    They take turns at going first: the second finds what it reads in the processor's caches.
    """
    ours: list[float] = []
    others: list[float] = []
    _set(connection, bare)
    for at, user in enumerate(users[:400]):
        asked = _question(connection, user)
        for recommend in (at % 2 == 0, at % 2 == 1):
            with connection.transaction():
                if recommend:
                    _sign_in(connection, user)
                    elapsed = _timed(connection, "select * from recommend_videos(20)", None)
                else:
                    elapsed = _timed(connection, _BARE, asked)
            if at >= 50:  # skip the first reads, which fill caches
                (ours if recommend else others).append(1000 * elapsed)
    figures = []
    for label, share in (("p50", 0.5), ("p99", 0.99)):
        value, baseline = float(np.quantile(ours, share)), float(np.quantile(others, share))
        figures.append(Figure(f"recommend_{label}_vs_fastest_{name}", value, baseline, value / baseline, "ms"))
    return figures


def _lists(connection: Connection, users: list[str], name: str) -> Iterator[Figure]:
    """The other lists, signed in as the user, against the plain one, one by one and taking turns at going first."""
    connection.execute("select two_tower.make_impression_day((now() at time zone 'UTC')::date)")
    connection.execute("delete from two_tower.impressions where list_id is not null")
    connection.execute(_SHOWN, (users,))
    connection.execute("analyze two_tower.impressions")
    # As text, so that what the client takes to write a thousand ids is not measured.
    shown = _array(UUID(bytes=each) for each in _ids("video", 1000))
    for label, query in _LISTS.items():
        asked: list[float] = []
        plain: list[float] = []
        for at, user in enumerate(users):
            values = {"shown": shown, "liked": _array(_question(connection, user)["seen"][:20])}
            if "%(best)s" in query:
                with connection.transaction():
                    _sign_in(connection, user)
                    best = connection.execute("select video_id from recommend_videos(200)").fetchall()
                values["best"] = _array(video for (video,) in best)
            for other in (at % 2 == 0, at % 2 == 1):
                with connection.transaction():
                    _sign_in(connection, user)
                    elapsed = _timed(connection, query if other else "select * from recommend_videos(20)", values)
                if at >= 50:  # skip the first reads, which fill caches
                    (asked if other else plain).append(1000 * elapsed)
        for quantile, share in (("p50", 0.5), ("p99", 0.99)):
            value, baseline = float(np.quantile(asked, share)), float(np.quantile(plain, share))
            yield Figure(f"{label}_{quantile}_{name}", value, baseline, value / baseline, "ms")


def _throughput(
    server: Server, connection: Connection, users: list[str], clients: int, seconds: float, bare: Bare, name: str
) -> Figure:
    """Lists per second over ``clients`` connections; the baseline is the fastest bare query, over as many."""
    asked = [_question(connection, user) for user in users]

    def rate(recommend: bool) -> float:
        done = [0] * clients
        stop = time.monotonic() + seconds

        def client(number: int) -> None:
            with connect(server, connection.info.dbname) as own:
                _set(own, bare)
                while time.monotonic() < stop:
                    at = (number * 61 + done[number]) % len(users)
                    with own.transaction():
                        if recommend:
                            _sign_in(own, users[at])
                            own.execute("select * from recommend_videos(20)").fetchall()
                        else:
                            own.execute(_BARE, asked[at]).fetchall()
                    done[number] += 1

        threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done) / seconds

    value, baseline = rate(recommend=True), rate(recommend=False)
    return Figure(f"lists_per_s_{clients}_{name}", value, baseline, value / baseline, "1/s")


def _batch(connection: Connection, users: list[str], name: str) -> Figure:
    """Users per second of recommend_batch; the baseline asks rank_videos for one user at a time."""
    some = users[:200]
    started = time.perf_counter()
    for user in some:
        connection.execute("select * from two_tower.rank_videos(%s, %s)", (user, K)).fetchall()
    single = len(some) / (time.perf_counter() - started)
    started = time.perf_counter()
    connection.execute("select * from two_tower.recommend_batch(%s::uuid[], %s)", (some, K)).fetchall()
    batch = len(some) / (time.perf_counter() - started)
    return Figure(f"recommend_batch_users_per_s_{name}", batch, single, batch / single, "users/s")


def _question(connection: Connection, user: str) -> dict[str, Any]:
    vector, seen = row(
        connection,
        """select e.embedding::text,
            array(select d.video_id from public.user_video_decisions d where d.user_id = e.user_id)
        from two_tower.user_embeddings e where e.model_version = %s and e.user_id = %s""",
        (VERSION, user),
    )
    return {"version": VERSION, "vector": vector, "seen": seen}


def _array(ids: Iterable[UUID]) -> str:
    """As PostgreSQL writes an array."""
    return "{" + ",".join(map(str, ids)) + "}"


def _sign_in(connection: Connection, user: str) -> None:
    claims = "select set_config('request.jwt.claims', json_build_object('sub', %s::uuid)::text, true)"
    connection.execute(claims, (user,))
    connection.execute("set local role authenticated")


def _timed(connection: Connection, query: str, values: dict[str, Any] | None) -> float:
    started = time.perf_counter()
    connection.execute(query.encode(), values).fetchall()
    return time.perf_counter() - started


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _scales(spread: Sequence[float]) -> np.ndarray:
    """Standard deviation along each of the axes before the last [DIM - 1], for shares of the variance at _AXES."""
    return np.sqrt(np.diff(np.interp(np.arange(DIM), _AXES, spread)))


def _ids(kind: str, count: int) -> list[bytes]:
    return [hashlib.md5(f"{kind}{n}".encode(), usedforsecurity=False).digest() for n in range(count)]


def _copy(connection: Connection, kind: str, count: int, vectors: Callable[[np.ndarray], np.ndarray]) -> list[str]:
    """``vectors(numbers)`` for ``count`` numbers, block by block; ids are the md5 of kind and number, and returned."""
    ids = _ids(kind, count)
    table, key = sql.Identifier(f"{kind}_embeddings"), sql.Identifier(f"{kind}_id")
    statement = sql.SQL("copy two_tower.{} (model_version, {}, embedding) from stdin (format binary)").format(
        table, key
    )
    with connection.cursor().copy(statement) as copy:
        copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
        for first in range(0, count, _BLOCK):
            block = ids[first : first + _BLOCK]
            rows = np.zeros(len(block), dtype=_ROW)
            rows["fields"], rows["l0"], rows["l1"], rows["l2"], rows["dim"] = 3, len(VERSION), 16, 4 + 2 * DIM, DIM
            rows["version"], rows["id"] = VERSION.encode(), np.array(block, dtype="V16")
            rows["v"] = vectors(np.arange(first, first + len(block)))
            copy.write(rows.tobytes())
        copy.write(b"\xff\xff")
    return [digest.hex() for digest in ids]
