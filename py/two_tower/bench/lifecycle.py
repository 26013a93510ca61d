"""``two-tower bench lifecycle``: eight readers at full speed through activations and rollbacks.

The baseline of each flip, under the same load, is the cheapest possible write: an update of one row. Both are timed in
the server, from the start of the statement to the end of its commit; the update's commit waits for the disk, a flip's
does not. A read is attributed to the flip or write that it overlaps, so that a busy machine slows both alike. An
answer is mixed if it differs, in any row or score, from what the version that it names answers when nothing else
happens.
"""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Any

import numpy as np
import psycopg

from two_tower.bench.common import (
    VERSION,
    Connection,
    Figure,
    connect,
    make_catalogue,
    make_model,
    make_people,
    new_database,
    register_random,
)
from two_tower.features import FeatureSchema
from two_tower.lifecycle import registry
from two_tower.progress import Progress
from two_tower.rows import one
from two_tower.server.embedded import Server

OTHER = f"{VERSION}-2"
K = 20
SAMPLE = 50
"""Users whose recommendations are read."""
_TIMED = """
create table public.bench_row as select 0 as n;
create procedure public.timed(what text, inout seconds double precision default null) language plpgsql as $proc$
declare
    v_started constant timestamptz := clock_timestamp();
begin
    execute what;
    commit;
    seconds := extract(epoch from clock_timestamp() - v_started);
end
$proc$
"""
_WRITE = "update public.bench_row set n = n + 1"
_FLIPS = (
    "select two_tower.activate_model(version) from two_tower.model_versions where state = 'standby'",
    "select two_tower.rollback_model()",
)
_ANSWER = "select video_id::text, score, model_version from public.recommend_videos(%s) order by rank"

Answer = tuple[tuple[str, float], ...]
Span = tuple[float, float]
"""Start and end by a clock that all processes share."""


@dataclass(frozen=True)
class Written:
    """One transaction: its duration in the server, and its span as the client saw it."""

    seconds: float
    span: Span


@dataclass(frozen=True)
class Scale:
    """How much of it."""

    videos: int = 10_000
    users: int = 1_000
    readers: int = 8
    flips: int = 100
    pause: float = 0.05
    """Seconds between two writes."""

    @classmethod
    def quick(cls) -> Scale:
        return cls(videos=2_000, users=200, flips=30, pause=0.02)


def run(server: Server, scale: Scale, progress: Progress) -> list[Figure]:
    """Flips, the slowest read during them, and ``mixed_answers`` with the number of answers as its baseline."""
    progress("building a world and two models", 0.0)
    new_database(server, "bench_lifecycle")
    with connect(server, "bench_lifecycle") as connection:
        make_catalogue(connection, scale.videos)
        make_people(connection, scale.users, 20, scale.videos)
        connection.execute("insert into two_tower.user_changes (user_id) select id from auth.users")
        _second_model(connection, make_model(connection, min(1_800, scale.videos)))
        connection.execute(_TIMED)
        expected = _expected(connection)
        flips, writes, reads, mixed = _measure(connection, expected, scale, progress)
    if len(reads) < scale.flips:
        raise RuntimeError("the readers read too little to say anything")
    slow, slow_else = (1000 * _slowest(reads, [each.span for each in done]) for done in (flips, writes))
    figures = []
    for name, share in (("flip_p50_ms", 0.5), ("flip_p99_ms", 0.99)):
        flip, write = (1000 * float(np.quantile([each.seconds for each in done], share)) for done in (flips, writes))
        figures.append(Figure(name, flip, write, flip / write, "ms"))
    return [
        *figures,
        Figure("slowest_read_ms", slow, slow_else, slow / slow_else, "ms"),
        Figure("mixed_answers", float(mixed), float(len(reads)), mixed / len(reads), "answers"),
    ]


def _second_model(connection: Connection, schema: FeatureSchema) -> None:
    register_random(connection, OTHER, schema, seed=1)
    registry.activate(connection, OTHER, lambda what, share: None, force=True)


def _ask(connection: Connection, user: str) -> tuple[Span, str, Answer]:
    connection.execute(
        "select set_config('request.jwt.claims', json_build_object('sub', %s::text)::text, false)", (user,)
    )
    started = time.monotonic()
    rows = connection.execute(_ANSWER, (K,)).fetchall()
    ended = time.monotonic()
    versions = {row[2] for row in rows}
    return (started, ended), versions.pop() if len(versions) == 1 else "", tuple((row[0], row[1]) for row in rows)


def _expected(connection: Connection) -> dict[tuple[str, str], Answer]:
    """What each version answers to each user of the sample."""
    users = [u for (u,) in connection.execute("select id::text from auth.users order by id limit %s", (SAMPLE,))]
    found = {}
    for _ in range(2):
        connection.execute("select two_tower.rollback_model()")
        for user in users:
            _, version, answer = _ask(connection, user)
            found[user, version] = answer
    return found


def _measure(
    connection: Connection, expected: dict[tuple[str, str], Answer], scale: Scale, progress: Progress
) -> tuple[list[Written], list[Written], list[Span], int]:
    """Flips, other writes, spans of reads, and how many reads were mixed."""
    context = multiprocessing.get_context("spawn")
    results: Queue[Any] = context.Queue()
    ready, stop = context.Semaphore(0), context.Event()
    readers = [
        context.Process(target=_read, args=(connection.info.dsn, expected, seed, ready, stop, results), daemon=True)
        for seed in range(scale.readers)
    ]
    chance = np.random.default_rng(0)
    flips, writes = [], []
    try:
        for reader in readers:
            reader.start()
        for _ in readers:
            if not ready.acquire(timeout=120):
                raise RuntimeError("a reader did not start")
        for turn in range(scale.flips):
            progress("flipping", turn / scale.flips)
            time.sleep(scale.pause * chance.uniform(0.5, 1.5))
            writes.append(_timed(connection, _WRITE))
            time.sleep(scale.pause * chance.uniform(0.5, 1.5))
            flips.append(_timed(connection, _FLIPS[turn % 2]))
        stop.set()
        answers = [results.get(timeout=120) for _ in readers]
    finally:
        stop.set()
        for reader in readers:
            reader.join(10)
            if reader.is_alive():
                reader.terminate()
    return flips, writes, [span for spans, _ in answers for span in spans], sum(wrong for _, wrong in answers)


def _timed(connection: Connection, statement: str) -> Written:
    started = time.monotonic()
    took = one(connection, "call public.timed(%s)", (statement,))
    return Written(took, (started, time.monotonic()))


def _read(
    dsn: str, expected: dict[tuple[str, str], Answer], seed: int, ready: Any, stop: Event, results: Queue[Any]
) -> None:
    """One reader, in a process of its own: it reads until told to stop."""
    chance = np.random.default_rng(seed)
    users = sorted({user for user, _ in expected})
    spans, mixed = [], 0
    with psycopg.connect(dsn, autocommit=True) as connection:
        _ask(connection, users[0])
        ready.release()
        while not stop.is_set():
            user = users[chance.integers(len(users))]
            span, version, answer = _ask(connection, user)
            spans.append(span)
            mixed += expected.get((user, version)) != answer
    results.put((spans, mixed))


def _slowest(reads: list[Span], beside: list[Span]) -> float:
    """Seconds of the slowest read that overlapped any of the spans; if none did, of the slowest of all."""
    took = [end - start for start, end in reads if any(start < b and a < end for a, b in beside)]
    return max(took or [end - start for start, end in reads])
