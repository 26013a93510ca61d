"""``two-tower bench serving``: recommendations against the bare index query, in one run, at growing catalogues.

Vectors are clustered, as learned ones are: a thousand centres of unequal size, noise around them, users near a few of
them. They are written past the model, since serving reads nothing but stored vectors.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from two_tower.bench import VERSION, Connection, Figure, connect, make_catalogue, make_model, new_database
from two_tower.features import DIM
from two_tower.progress import Report
from two_tower.server import Server

K = 20
USERS = 1_000
DECISIONS = 100
"""Of each user, all of them excluded from the answer."""
EF_SEARCH = 400
"""As two_tower.nearest_videos sets it."""

_ROW = np.dtype(
    [("fields", ">i2"), ("l1", ">i4"), ("id", "V16"), ("l2", ">i4"), ("dim", ">i2"), ("none", ">i2"), ("v", ">f2", DIM)]
)
_MORE_VIDEOS = """
insert into public.videos (id, product_url, title, published_at)
select md5('video' || n)::uuid, 'https://videos.example/' || n, 'Title ' || n, timestamptz '2025-01-01'
from generate_series(2000, %s - 1) n
"""
_PEOPLE = "insert into auth.users (id) select md5('user' || n)::uuid from generate_series(0, %s - 1) n"
# Everybody has decided on the best of five thousand videos, so that exclusions matter.
_DECIDED = """
insert into public.user_video_decisions (user_id, video_id, decision_type)
select u.user_id, n.video_id, 'like'
from two_tower.user_embeddings u
cross join lateral (
    select e.video_id
    from (
        select distinct md5('video' || floor(%s * random())::int)::uuid as id
        from generate_series(1, 5000) where u.user_id is not null
    ) s
    join two_tower.video_embeddings e on e.model_version = u.model_version and e.video_id = s.id
    order by e.embedding operator(extensions.<=>) u.embedding limit %s
) n
"""
_EXACT = """
select video_id from two_tower.video_embeddings
where model_version = %(version)s and video_id <> all (%(seen)s)
order by (embedding operator(extensions.<=>) %(vector)s::extensions.halfvec) + 0, video_id limit 20
"""
_BARE = """
select video_id from two_tower.video_embeddings
where model_version = %(version)s
order by embedding operator(extensions.<=>) %(vector)s::extensions.halfvec limit 20
"""


def run(server: Server, sizes: Sequence[int], seconds: float, report: Report) -> list[Figure]:
    """All figures, at each number of videos in ``sizes``; ``seconds`` is how long throughput is measured."""
    figures: list[Figure] = []
    for at, size in enumerate(sizes):
        report(f"building {size:,} videos and their index", at / len(sizes))
        with _Database(server, size) as (connection, users):
            report(f"serving from {size:,} videos", (at + 0.6) / len(sizes))
            name = f"{size // 1_000_000}m" if size % 1_000_000 == 0 else f"{size // 1000}k"
            figures += [_recall(connection, users[:100], name), *_latency(connection, users, name)]
            figures += [_throughput(server, connection, users, clients, seconds, name) for clients in (2, 16)]
            figures.append(_batch(connection, users, name))
    return figures


class _Database:
    """A database with ``size`` videos, dropped at the end of the ``with`` block."""

    def __init__(self, server: Server, size: int) -> None:
        self.server, self.size, self.name = server, size, f"serving_{size}"

    def __enter__(self) -> tuple[Connection, list[str]]:
        new_database(self.server, self.name)
        self.connection = connect(self.server, self.name)
        connection, size = self.connection, self.size
        # A small catalogue carries the model; the large one follows by copy.
        make_catalogue(connection, 2_000)
        make_model(connection, known_videos=1_000)
        connection.execute("set session_replication_role = replica")
        connection.execute(_MORE_VIDEOS, (size,))
        connection.execute("truncate two_tower.video_embeddings, two_tower.user_embeddings")
        index = connection.execute("select pg_get_indexdef('two_tower.video_embeddings_1_hnsw'::regclass)").fetchone()
        assert index is not None
        connection.execute("drop index two_tower.video_embeddings_1_hnsw")
        rng = np.random.default_rng(0)
        centres = _unit(rng.normal(size=(1_000, DIM)))
        weight = rng.zipf(1.6, size=1_000).clip(max=200).astype(float)
        chosen = rng.choice(1_000, size, p=weight / weight.sum())
        videos = _unit(centres[chosen] + rng.normal(size=(size, DIM)) * 0.7 / DIM**0.5)
        ids = np.array([bytes.fromhex(_md5(f"video{n}")) for n in range(size)], dtype="V16")
        _copy(connection, "video_embeddings", "video_id", ids, videos)
        users = [_md5(f"user{n}") for n in range(USERS)]
        near = centres[rng.choice(1_000, (USERS, 3))].sum(axis=1)
        tastes = _unit(near + rng.normal(size=(USERS, DIM)) * 0.5 / DIM**0.5)
        user_ids = np.array([bytes.fromhex(user) for user in users], dtype="V16")
        _copy(connection, "user_embeddings", "user_id", user_ids, tastes)
        connection.execute(_PEOPLE, (USERS,))
        connection.execute("analyze public.videos")
        connection.execute(_DECIDED, (size, DECISIONS))
        connection.execute("set session_replication_role = origin; set max_parallel_maintenance_workers = 2")
        connection.execute(index[0])
        for table in ("public.user_video_decisions", "two_tower.user_embeddings_1", "two_tower.video_embeddings_1"):
            connection.execute(f"analyze {table}".encode())
        return connection, users

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        with psycopg.connect(self.server.dsn, autocommit=True) as admin:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(self.name)))


def _recall(connection: Connection, users: list[str], name: str) -> Figure:
    """Share of the exact twenty, exclusions applied, that recommend_videos gives; the baseline is one."""
    shares = []
    for user in users:
        asked = _question(connection, user)
        exact = {row[0] for row in connection.execute(_EXACT, asked)}
        found = {row[0] for row in connection.execute("select video_id from two_tower.rank_videos(%s, %s)", (user, K))}
        shares.append(len(exact & found) / len(exact))
    value = statistics.mean(shares)
    return Figure(f"recall_at_20_{name}", value, 1.0, value, "share")


def _latency(connection: Connection, users: list[str], name: str) -> list[Figure]:
    """recommend_videos, signed in as the user, against the bare query with the same index and ef_search, one by one."""
    ours, bare = [], []
    for at, user in enumerate(users[:400]):
        asked = _question(connection, user)
        with connection.transaction():
            _sign_in(connection, user)
            elapsed = _timed(connection, "select * from recommend_videos(20)", None)
        with connection.transaction():
            connection.execute(f"set local hnsw.ef_search = {EF_SEARCH}".encode())
            baseline = _timed(connection, _BARE, asked)
        if at >= 50:  # after what is read for the first time
            ours.append(1000 * elapsed)
            bare.append(1000 * baseline)
    figures = []
    for label, share in (("p50", 0.5), ("p99", 0.99)):
        value, baseline = float(np.quantile(ours, share)), float(np.quantile(bare, share))
        figures.append(Figure(f"recommend_{label}_{name}", value, baseline, value / baseline, "ms"))
    return figures


def _throughput(
    server: Server, connection: Connection, users: list[str], clients: int, seconds: float, name: str
) -> Figure:
    """Answers per second of ``clients`` connections; the baseline is the bare query, as many connections."""

    def rate(bare: bool) -> float:
        done = [0] * clients
        stop = time.monotonic() + seconds

        def client(number: int) -> None:
            with connect(server, connection.info.dbname) as own:
                own.execute(f"set hnsw.ef_search = {EF_SEARCH}".encode())
                while time.monotonic() < stop:
                    user = users[(number * 61 + done[number]) % len(users)]
                    with own.transaction():
                        if bare:
                            own.execute(_BARE, _question(own, user)).fetchall()
                        else:
                            _sign_in(own, user)
                            own.execute("select * from recommend_videos(20)").fetchall()
                    done[number] += 1

        threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done) / seconds

    value, baseline = rate(bare=False), rate(bare=True)
    return Figure(f"recommend_per_s_{clients}_clients_{name}", value, baseline, value / baseline, "1/s")


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
    row = connection.execute(
        """select e.embedding::text,
            array(select d.video_id from public.user_video_decisions d where d.user_id = e.user_id)
        from two_tower.user_embeddings e where e.model_version = %s and e.user_id = %s""",
        (VERSION, user),
    ).fetchone()
    assert row is not None
    return {"version": VERSION, "vector": row[0], "seen": row[1]}


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


def _md5(text: str) -> str:
    import hashlib

    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _copy(connection: Connection, table: str, key: str, ids: np.ndarray, vectors: np.ndarray) -> None:
    rows = np.zeros(len(ids), dtype=_ROW)
    rows["fields"], rows["l1"], rows["l2"], rows["dim"] = 2, 16, 4 + 2 * DIM, DIM
    rows["id"], rows["v"] = ids, vectors
    connection.execute("create temp table incoming (id uuid, embedding extensions.halfvec(128))")
    with connection.cursor().copy("copy incoming from stdin (format binary)") as copy:
        copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
        for start in range(0, len(rows), 50_000):
            copy.write(rows[start : start + 50_000].tobytes())
        copy.write(b"\xff\xff")
    statement = sql.SQL(
        "insert into two_tower.{} (model_version, {}, embedding, input_hash) select {}, id, embedding, '' from incoming"
    )
    connection.execute(statement.format(sql.Identifier(table), sql.Identifier(key), sql.Literal(VERSION)))
    connection.execute("drop table incoming")
