"""``two-tower bench freshness``: how soon, and at what cost, a like is in the vectors.

The server is durable, as in production. Rounds alternate between the two sides of a comparison.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, LiteralString
from uuid import UUID

import numpy as np
import psycopg
from psycopg import sql

from two_tower.bench.client_pipeline import ClientPipeline
from two_tower.bench.common import (
    CATALOGUE,
    VERSION,
    Connection,
    Figure,
    compared,
    connect,
    make_catalogue,
    make_model,
    make_people,
    new_database,
    private_megabytes,
    seconds,
)
from two_tower.progress import Progress
from two_tower.rows import one
from two_tower.server.embedded import Server

CATALOGUE_DATABASE = "bench_catalogue"
SLICE = 10
"""Likes in a row on one of two tables that are compared."""
TIMED = 200
"""Likes per call of the procedure that times them."""
_TIMED_LIKES = """
create procedure public.timed_likes(users uuid[], videos uuid[], inout seconds double precision[] default '{}')
language plpgsql as $proc$
declare
    v_started timestamptz;
begin
    for n in 1 .. cardinality(users) loop
        v_started := clock_timestamp();
        insert into public.user_video_decisions (user_id, video_id, decision_type) values (users[n], videos[n], 'like');
        commit;
        seconds[n] := extract(epoch from clock_timestamp() - v_started);
    end loop;
end
$proc$
"""
_DECISIONS_ALIKE: tuple[LiteralString, ...] = (
    "create table public.{} (like public.user_video_decisions including all)",
    "alter table public.{} add foreign key (user_id) references auth.users on delete cascade",
    "alter table public.{} add foreign key (video_id) references public.videos on delete cascade",
    "insert into public.{} select * from public.user_video_decisions",
)
"""The same columns, keys, indexes, checks and rows."""
_EMPTY_TRIGGER = """
create function public.nothing() returns trigger language plpgsql security definer set search_path = ''
as 'begin return null; end';
create trigger nothing after insert on public.bench_empty
referencing new table as new_rows for each statement execute function public.nothing()
"""
REFRESH = "call two_tower.refresh(null, interval '1 hour')"


@dataclass(frozen=True)
class Scale:
    """How much of everything. The defaults are the full benchmark."""

    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """Users in the databases in which ``changed`` users are refreshed; the first is the baseline of the others."""
    changed: int = 1_000
    videos: int = CATALOGUE
    short_history: int = 10
    """Decisions of each of these users."""
    users: int = 50_000
    """Users refreshed and embedded in the comparison with the client's pipeline."""
    history: int = 40
    """Decisions of each of these."""
    rounds: int = 10
    likes: int = 500
    """Likes per round on each of two tables."""
    seconds: float = 3.0
    """Of likes beside a refresh, per round."""

    @classmethod
    def quick(cls) -> Scale:
        """About a minute's worth."""
        return cls(sizes=(10_000, 50_000), users=5_000, rounds=5, likes=200, seconds=1.0)


def run(server: Server, scale: Scale, progress: Progress) -> Iterator[Figure]:
    """Each figure when it is there. ``server`` is a throwaway one."""
    progress("making a catalogue and a model", 0.0)
    _catalogue(server, scale)
    progress("likes with and without triggers", 0.05)
    yield from like_rates(server, scale)
    yield like_latency(server, scale)
    progress("refreshing 1,000 of few and of many users", 0.15)
    yield from refreshes_by_size(server, scale, progress)
    progress(f"making {scale.users:,} users", 0.55)
    with _world(server, scale, "bench_users", scale.users, scale.history) as connection:
        connection.execute("insert into two_tower.user_changes (user_id) select id from auth.users")
        connection.execute(REFRESH)
        connection.execute(
            "vacuum (analyze) public.user_video_decisions, public.user_features, two_tower.user_embeddings"
        )
        client = ClientPipeline(connection)
        for at, engine in enumerate(ENGINES):
            _use(connection, engine)
            progress(f"refreshing against a client's pipeline, {engine}", 0.65 + 0.15 * at)
            yield from of_engine(engine, refresh_against_client(connection, scale, client, at))
            yield from of_engine(engine, cold_and_warm(server, connection, scale, at))


ENGINES = ("onnxruntime", "sql")
"""Each is measured; the last one is the default for a model with weights as rows."""


def _use(connection: Connection, engine: str) -> None:
    """Switches the model's users to ``engine``, whatever it was registered with, and recomputes what is stale."""
    connection.execute("update two_tower.model_versions set user_engine = %s where version = %s", (engine, VERSION))
    connection.execute("insert into two_tower.user_changes (user_id) select id from auth.users")
    connection.execute(REFRESH)
    # As autovacuum, a minute after so many changes.
    connection.execute("vacuum (analyze) public.user_features, two_tower.user_embeddings")
    connection.execute("vacuum two_tower.user_changes, two_tower.video_changes")


def of_engine(engine: str, figures: list[Figure]) -> list[Figure]:
    """The figures with the engine's name as a suffix; also without it if the engine is the default."""
    named = [replace(figure, figure=f"{figure.figure}_{engine}") for figure in figures]
    return [*named, *(figures if engine == ENGINES[-1] else [])]


# ------------------------------------------------------------------------------------------------ refreshing


def refreshes_by_size(server: Server, scale: Scale, progress: Progress) -> list[Figure]:
    """Milliseconds of a refresh after 1,000 of many users liked something, against the same among the fewest users.

    All have the same catalogue and model, and the same number of decisions per user, scattered over the table.
    Every user has features and a vector beforehand, those not of the 1,000 with made-up content. The 1,000 are the same
    in each round: the first, which does not count, reads their pages, and writes each to the log whole, as PostgreSQL
    does after a checkpoint.
    """
    timings: dict[int, list[float]] = {size: [] for size in scale.sizes}
    databases = []
    try:
        for at, size in enumerate(scale.sizes):
            progress(f"making {size:,} users", 0.15 + 0.3 * at / len(scale.sizes))
            world = _world(server, scale, f"bench_{size}", size, scale.short_history)
            databases.append((size, world, world.__enter__()))
            _pretend_refreshed(databases[-1][2])
        progress(f"refreshing {scale.changed:,} of them", 0.5)
        active = {size: _some_users(connection, scale.changed) for size, _, connection in databases}
        for turn in range(scale.rounds + 1):
            for size, _, connection in databases:
                _like_one_more(connection, active[size], turn)
                took = _execute(connection, REFRESH)
                if turn:  # the first round of each is a warm-up
                    timings[size].append(took * 1000)
    finally:
        for _, world, _ in databases:
            world.__exit__(None, None, None)
    first, *others = scale.sizes
    name = f"refresh_{scale.changed}_at"
    return [
        compared(f"{name}_{short(size)}_vs_{short(first)}", list(zip(timings[size], timings[first], strict=True)), "ms")
        for size in reversed(others)
    ]


def refresh_against_client(
    connection: Connection, scale: Scale, client: ClientPipeline, engine: int = 0
) -> list[Figure]:
    """Vectors per second of ``refresh()`` after every user liked something, against the pipeline of clients.

    The client fetches feature JSON by ``get_user_embedding_feature_batch(limit, offset)`` in pages of 1,000, places
    counts by dictionaries of the vocabularies, runs onnxruntime with one thread on 256 rows at a time, and upserts with
    executemany. In a second figure it pages by key rather than by offset. The refresh also stores features, which
    the client does not; in a third figure the refresh does not either. All run on one connection, one after the
    other, on the same users.
    """
    users = [user for (user,) in connection.execute("select id from auth.users order by id")]
    share = max(scale.users // scale.rounds, 1)
    pages: list[tuple[float, float]] = []
    keyed: list[tuple[float, float]] = []
    bare: list[tuple[float, float]] = []
    for turn in range(scale.rounds):
        mine = users[turn * share : (turn + 1) * share]
        _like_one_more(connection, mine, turn + engine * scale.rounds)
        vectors = len(mine) / sum(
            _execute(
                connection,
                "select two_tower.write_user_vectors(%s, two_tower.live_versions())",
                mine[start : start + 1000],
            )
            for start in range(0, len(mine), 1000)
        )
        # Another like, so that the refresh has as much to write.
        _like_one_more(connection, mine, turn + (2 + engine) * scale.rounds)
        ours = len(mine) / _execute(connection, REFRESH)
        page = min(1000, share)
        before = users[turn * share - 1] if turn else None
        by_offset = [(turn * share + start, None) for start in range(0, len(mine), page)]
        pipeline = len(mine) / client.run(page, by_offset)
        pages.append((ours, pipeline))
        bare.append((vectors, pipeline))
        by_key = [(0, before if not start else mine[start - 1]) for start in range(0, len(mine), page)]
        keyed.append((ours, len(mine) / client.run(page, by_key)))
    unit = "vectors/s"
    return [
        compared("refresh_vs_client_pipeline", pages, unit),
        compared("refresh_vs_client_pipeline_no_features", bare, unit),
        compared("refresh_vs_client_by_key", keyed, unit),
    ]


# ------------------------------------------------------------------------------------------------ embedding


def cold_and_warm(server: Server, connection: Connection, scale: Scale, engine: int = 0) -> list[Figure]:
    """Milliseconds of ``embed_user()`` after a like: the first call of a connection against its later ones, and those
    against the like itself; also private megabytes of its backend, against a backend that has not embedded."""
    database = connection.info.dbname
    users = [user for (user,) in connection.execute("select id from auth.users order by id desc limit 200")]
    waits, warm, memory = [], [], []
    for turn in range(5):
        with connect(server, database) as active, connect(server, database) as idle:
            bystander = private_megabytes(idle)
            both = [_embed_own(active, user, turn + 5 * engine) for user in users[turn * 21 : turn * 21 + 21]]
            took, likes = zip(*both, strict=True)
            later = float(np.median(took[1:])) * 1000
            waits.append((took[0] * 1000, later))
            warm.append((later, float(np.median(likes[1:])) * 1000))
            memory.append((private_megabytes(active), bystander))
    return [
        compared("cold_first_embed_ms", waits, "ms"),
        compared("embed_user_p50_ms", warm, "ms"),
        compared("warm_backend_mb", memory, "MB"),
    ]


def _embed_own(connection: Connection, user: UUID, turn: int) -> tuple[float, float]:
    """Seconds of a user's ``embed_user()``, called as PostgREST calls it, after one more like; and of that like."""
    like = seconds(lambda: _like_one_more(connection, [user], 50 + turn))
    with connection.transaction():
        connection.execute("set local role authenticated")
        connection.execute(
            "select set_config('request.jwt.claims', json_build_object('sub', %s::text)::text, true)", (user,)
        )
        return _execute(connection, "select public.embed_user()"), like


# ------------------------------------------------------------------------------------------------ likes


def like_rates(server: Server, scale: Scale) -> list[Figure]:
    """Likes per second of one client that commits each, with the triggers, against a table like it that has none.

    Measured durably, without waiting for the disk, and durably on a disk that takes a millisecond longer, which the
    server's ``commit_delay`` simulates. A second figure shows the unavoidable cost of any trigger: another table has
    one that has the same privileges, gets the rows in the same way, and does nothing.
    """
    tables = ("user_video_decisions", "bench_empty", "bench_plain")
    modes: dict[str, LiteralString] = {
        "": "set synchronous_commit = on",
        "_slow_disk": "set commit_delay = 1000; set commit_siblings = 0",
        "_async": "set synchronous_commit = off",
    }
    with _world(server, scale, "bench_likes", scale.sizes[0], scale.short_history) as connection:
        for table in tables[1:]:
            for statement in _DECISIONS_ALIKE:
                connection.execute(sql.SQL(statement).format(sql.Identifier(table)))
        connection.execute(_EMPTY_TRIGGER)
        connection.execute("vacuum (analyze) public.bench_empty, public.bench_plain, public.user_video_decisions")
        pairs = _pairs(connection)
        figures = []
        for name, setting in modes.items():
            connection.execute(setting)
            rounds = []
            for turn in range(scale.rounds + 1):
                took = dict.fromkeys(tables, 0.0)
                # In short slices, so that other load on the machine affects all alike.
                for _ in range(max(scale.likes // SLICE, 1)):
                    batch = [next(pairs) for _ in range(SLICE)]
                    for table in tables:
                        took[table] += _like(connection, table, batch)
                if turn:
                    rounds.append([scale.likes / spent for spent in took.values()])
            with_triggers = [(full, plain) for full, _, plain in rounds]
            with_an_empty_one = [(empty, plain) for _, empty, plain in rounds]
            beside = [(full, empty) for full, empty, _ in rounds]
            figures += [
                compared(f"like_rate_with_triggers{name}", with_triggers, "likes/s"),
                compared(f"like_rate_with_an_empty_one{name}", with_an_empty_one, "likes/s"),
                compared(f"like_rate_vs_empty_trigger{name}", beside, "likes/s"),
            ]
        return figures


def like_latency(server: Server, scale: Scale) -> Figure:
    """The 99th percentile of a like's milliseconds while a refresh runs all the time, against none running.

    One client commits each like durably, beside one refresher. A like is timed in the server, to the end of its
    commit: on two processors, a client's timing would include waiting for a processor.
    """
    with (
        _world(server, scale, "bench_likes", scale.sizes[0], scale.short_history) as connection,
        connect(server, "bench_likes") as refresher,
    ):
        connection.execute(_TIMED_LIKES)
        pairs = _pairs(connection)
        rounds = []
        for turn in range(scale.rounds + 1):
            quiet = _slowest(connection, pairs, scale.seconds)
            connection.execute("insert into two_tower.user_changes (user_id) select id from auth.users")
            done = threading.Event()

            def keep_busy(done: threading.Event = done) -> None:
                while not done.is_set():
                    refresher.execute("call two_tower.refresh(null, interval '1 second')")
                    if not done.is_set():
                        refresher.execute(
                            "insert into two_tower.user_changes (user_id) select id from auth.users where not exists "
                            "(select from two_tower.pending_users)"
                        )

            thread = threading.Thread(target=keep_busy)
            thread.start()
            try:
                busy = _slowest(connection, pairs, scale.seconds)
            finally:
                done.set()
                thread.join()
            if turn:
                rounds.append((busy * 1000, quiet * 1000))
        return compared("like_p99_during_refresh", rounds, "ms")


def _slowest(connection: Connection, pairs: Iterator[tuple[UUID, UUID]], limit: float) -> float:
    """The 99th percentile of the seconds that likes take, of those made in ``limit`` seconds."""
    until = time.perf_counter() + limit
    waits: list[float] = []
    while time.perf_counter() < until:
        users, videos = zip(*islice(pairs, TIMED), strict=True)
        waits += one(connection, "call public.timed_likes(%s, %s)", (list(users), list(videos)))
    return float(np.percentile(waits, 99))


def _pairs(connection: Connection) -> Iterator[tuple[UUID, UUID]]:
    """Pairs of users and videos without a decision: the videos come after all that :func:`make_people` uses."""
    with connection.transaction():
        connection.execute("set local session_replication_role = replica")
        connection.execute(
            """insert into public.videos (id, product_url)
            select public.ident('extra', n), 'extra ' || n from generate_series(1, 1000) n on conflict do nothing"""
        )
    users = [user for (user,) in connection.execute("select id from auth.users order by random() limit 5000")]
    videos = connection.execute(
        "select id from public.videos where product_url ^@ 'extra ' order by random()"
    ).fetchall()
    return ((user, video) for (video,) in videos for user in users)


def _like(connection: Connection, table: str, pairs: Sequence[tuple[UUID, UUID]]) -> float:
    """Likes one by one, each in a transaction of its own; the seconds it took."""
    template = sql.SQL("insert into public.{} (user_id, video_id, decision_type) values (%s, %s, 'like')")
    query = template.format(sql.Identifier(table)).as_bytes(connection)
    started = time.perf_counter()
    for pair in pairs:
        connection.execute(query, pair, prepare=True)
    return time.perf_counter() - started


def _execute(connection: Connection, query: LiteralString, *values: Any) -> float:
    """Seconds that a statement takes, with all that it returns."""
    started = time.perf_counter()
    cursor = connection.execute(query, values or None)
    if cursor.description:
        cursor.fetchall()
    return time.perf_counter() - started


# ------------------------------------------------------------------------------------------------ worlds


def _catalogue(server: Server, scale: Scale) -> None:
    """The database that all worlds are copied from."""
    new_database(server, CATALOGUE_DATABASE)
    with connect(server, CATALOGUE_DATABASE) as connection:
        make_catalogue(connection, scale.videos)
        make_model(connection)


@contextmanager
def _world(server: Server, scale: Scale, name: str, users: int, decisions: int) -> Iterator[Connection]:
    """A database with the catalogue, the model and users in it; dropped at the end."""
    new_database(server, name, CATALOGUE_DATABASE)
    try:
        with connect(server, name) as connection:
            make_people(connection, users, decisions, scale.videos)
            # Otherwise the first refresh of the day would run these jobs, too.
            connection.execute(
                """insert into two_tower.job_runs (job, finished_at)
                values ('update_popularity', now()), ('purge_logs', now())"""
            )
            connection.execute("vacuum (analyze) public.user_video_decisions, auth.users")
            connection.execute("checkpoint")  # so that pages written so far are not flushed during a measurement
            yield connection
    finally:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def _pretend_refreshed(connection: Connection) -> None:
    """Features and vectors for everyone, as wide as real ones."""
    connection.execute(
        """insert into public.user_features (user_id, like_count, liked_tags)
        select id, 7, jsonb_build_object(id::text, 1) from auth.users"""
    )
    connection.execute(
        """insert into two_tower.user_embeddings (model_version, user_id, embedding)
        select %s, id, array_fill(0.088::real, array[128])::extensions.halfvec from auth.users""",
        (VERSION,),
    )
    connection.execute("vacuum (analyze) public.user_features, two_tower.user_embeddings")
    connection.execute("checkpoint")


def _some_users(connection: Connection, count: int) -> list[UUID]:
    """``count`` users at random."""
    query = "select id from auth.users order by md5(id::text) limit %s"
    return [user for (user,) in connection.execute(query, (count,))]


def _like_one_more(connection: Connection, users: Sequence[UUID], turn: int) -> None:
    """One more like of each of ``users``, of a video that most do not know."""
    connection.execute(
        """insert into public.user_video_decisions (user_id, video_id, decision_type)
        select u, (select id from public.videos order by product_url desc offset %s limit 1), 'like'
        from unnest(%s::uuid[]) u
        on conflict (user_id, video_id) do update set decision_type = 'like', created_at = clock_timestamp()""",
        (turn, list(users)),
    )


def short(number: int) -> str:
    """10000 -> 10k, 1000000 -> 1m."""
    for size, letter in ((1_000_000, "m"), (1_000, "k")):
        if number >= size and number % size == 0:
            return f"{number // size}{letter}"
    return str(number)
