"""``two-tower bench load``: an application's requests at given rates, beside refreshes, and what gives way first.

pgbench sends what PostgREST would: a transaction per request, as the signed-in user. Or threads of this process send
requests to a PostgREST (:mod:`.rest`). Requests are due at random times at a given average rate, whatever the database
does, and latency counts from the due time, so that it shows when the database falls behind. Meanwhile a refresh starts
a second after the previous one, and ``pg_stat_activity`` is read ten times a second: a backend that is active and not
waiting has a processor or needs one.

The model has random weights, so its lists are useless, but cost about the same as others; for those see
``two-tower bench serving``.
"""

from __future__ import annotations

import math
import os
import re
import statistics
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from psycopg.conninfo import make_conninfo

from two_tower.bench import rest
from two_tower.bench.common import (
    Connection,
    Figure,
    connect,
    make_catalogue,
    make_model,
    make_people,
    new_database,
    seconds,
)
from two_tower.errors import UserError
from two_tower.progress import Progress
from two_tower.server.embedded import Server

DATABASE = "bench_load"
DECISIONS = 20
"""Of each user, before anything is measured."""
LOOK = 0.1
"""Seconds between two samples of what backends wait for."""
PAUSE = 1.0
"""Seconds between two refreshes."""
KEPT_UP = 0.95
"""Share of the due requests that a database must answer to count as keeping up."""
BUSY = 0.8
"""Backends that need a processor, per processor, above which there are too few processors."""
CHANCE = 4
"""How many standard deviations random arrivals may stay below the expected number."""

_SIGN_IN = """begin;
select set_config('role', 'authenticated', true),
    set_config('request.jwt.claims', json_build_object('sub', md5('user' || :u::text)::uuid)::text, true);
"""


def _as_somebody(statement: str, more: str = "") -> str:
    """A pgbench script: signs in as one of the users for a transaction with this statement; ``more`` is also drawn."""
    return f"\\set u random(0, :users - 1)\n{more}{_SIGN_IN}{statement};\nend;\n"


REQUESTS = {
    "list": _as_somebody("select * from public.recommend_videos(20)"),
    "like": _as_somebody(
        """insert into public.user_video_decisions (user_id, video_id, decision_type)
values (md5('user' || :u::text)::uuid, md5('video' || :v::text)::uuid, 'like')
on conflict (user_id, video_id) do update set decision_type = excluded.decision_type""",
        # The first videos are the popular ones, as in the catalogue.
        "\\set v random_exponential(0, :videos - 1, 4)\n",
    ),
    "embed": _as_somebody("select public.embed_user()"),
}
"""An application's requests, by name: pgbench scripts."""

_ACTIVE = """
select wait_event_type, wait_event, count(*) from pg_stat_activity
where datname = current_database() and state = 'active' and pid <> pg_backend_pid() group by 1, 2
"""

WAITS = ("processors", "wal", "disk", "locks", "else")
"""What an active backend may be waiting for, see :func:`resource`."""


@dataclass(frozen=True)
class Scale:
    """How much of it. The defaults are the full benchmark."""

    videos: int = 30_000
    users: int = 20_000
    clients: int = 16
    rates: tuple[float, ...] = (25, 50, 100, 200, 400)
    """Requests a second, one after the other."""
    seconds: int = 60
    """At each rate."""
    mix: Mapping[str, int] = field(default_factory=lambda: {"list": 70, "like": 25, "embed": 5})
    """How often each of :data:`REQUESTS` is made, relative to the others."""

    @classmethod
    def quick(cls) -> Scale:
        return cls(videos=3_000, users=2_000, clients=8, rates=(20, 80), seconds=8)


@dataclass(frozen=True)
class Load:
    """The results at one rate."""

    rate: float
    seconds: int
    took: Mapping[str, np.ndarray]
    """Request -> seconds that each took, from when it was due."""
    errors: int
    messages: tuple[str, ...]
    """The distinct error messages."""
    waits: Mapping[str, float]
    """For each of :data:`WAITS`, the average number of backends."""
    events: Mapping[str, float]
    """The same by PostgreSQL's names of wait events."""
    refreshes: tuple[float, ...]
    """Seconds that each took."""

    @property
    def all(self) -> np.ndarray:
        """Seconds of every request that was answered."""
        return np.concatenate([np.zeros(0), *self.took.values()])

    @property
    def per_second(self) -> float:
        return len(self.all) / self.seconds

    @property
    def kept_up(self) -> bool:
        """Whether as many were answered as were due, within random variation."""
        due = self.rate * self.seconds
        return len(self.all) >= KEPT_UP * due - CHANCE * math.sqrt(due) and not self.errors

    def quantile(self, share: float, request: str | None = None) -> float:
        """Milliseconds; NaN if there was no such request."""
        values = self.all if request is None else self.took[request]
        return 1000 * float(np.quantile(values, share)) if len(values) else math.nan


def resource(kind: str | None, event: str | None) -> str:
    """The one of :data:`WAITS` to which PostgreSQL's wait event belongs."""
    if kind is None:
        return "processors"
    if (event or "").startswith("WAL") or event == "SyncRep":
        return "wal"
    return {"IO": "disk", "Lock": "locks"}.get(kind, "else")


def scarce(waits: Mapping[str, float], processors: int) -> str | None:
    """The scarce resource: one of :data:`WAITS`, or None if backends hardly wait for anything."""
    if waits["processors"] >= BUSY * processors:
        return "processors"
    most = max(WAITS[1:], key=lambda name: waits[name])
    return most if waits[most] >= 1 and waits[most] >= waits["processors"] else None


Answered = tuple[dict[str, np.ndarray], int, tuple[str, ...]]
"""Request -> seconds that each took from when it was due, errors, and what they say."""

Send = Callable[[Scale, float], Answered]
"""Sends an application's requests at a given rate."""


def run(
    server: Server, scale: Scale, progress: Progress, *, through_postgrest: bool = False
) -> tuple[list[Figure], list[str]]:
    """All figures, and a summary in words."""
    progress(f"making {scale.videos:,} videos, {scale.users:,} users and a model", 0.0)
    _world(server, scale)
    with _postgrest(server) if through_postgrest else nullcontext(partial(_pgbench, server)) as send:
        return _measured(server, scale, send, progress)


def _measured(server: Server, scale: Scale, send: Send, progress: Progress) -> tuple[list[Figure], list[str]]:
    loads: list[Load] = []
    for at, rate in enumerate(scale.rates):
        progress(f"{rate:g} requests a second", 0.3 + 0.7 * at / (len(scale.rates) + 1))
        loads.append(measure(server, scale, rate, send))
    if not all(len(load.all) for load in loads):
        raise UserError("at one of the rates no request was answered", "measure for longer, or at higher rates")
    words = [*map(said, loads)]
    best = max((load for load in loads if load.kept_up), key=lambda load: load.rate, default=None)
    alone = None
    if best is None:
        words.append("no rate was sustained, so there are no latencies of one; give lower ones: --rates")
    else:
        progress(f"{best.rate:g} requests a second, no refresh", 1 - 0.7 / (len(scale.rates) + 1))
        alone = measure(server, scale, best.rate, send, refreshing=False)
    return [*figures(loads, best, alone), *by_rate(loads)], words


def figures(loads: list[Load], best: Load | None, alone: Load | None) -> list[Figure]:
    """The contract's figures: at the ``best`` rate sustained, beside the same rate without refreshes.

    If none was sustained, ``requests_per_s`` is 0 of the lowest rate, and there are no latencies.
    """
    asked, errors = sum(len(load.all) + load.errors for load in loads), sum(load.errors for load in loads)
    rate, answered = (best.rate, best.per_second) if best else (min(load.rate for load in loads), 0.0)
    rows = [Figure("requests_per_s", answered, rate, answered / rate, "1/s")]
    if best and alone:
        for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99)):
            value, beside = best.quantile(share), alone.quantile(share)
            rows.append(Figure(name, value, beside, value / beside, "ms"))
    return [*rows, Figure("errors", float(errors), float(asked), errors / max(asked, 1), "requests")]


def by_rate(loads: list[Load]) -> Iterator[Figure]:
    """Each rate compared with the first, which is a light load; backends compared with processors."""
    first, processors = loads[0], float(_processors())
    for load in loads:
        label = f"{load.rate:g}"
        yield Figure(f"requests_per_s_{label}", load.per_second, load.rate, load.per_second / load.rate, "1/s")
        asked = len(load.all) + load.errors
        yield Figure(f"errors_{label}", float(load.errors), float(asked), load.errors / max(asked, 1), "requests")
        for request in (None, *load.took):
            for name, share in (("p50", 0.5), ("p99", 0.99)):
                value, beside = load.quantile(share, request), first.quantile(share, request)
                if not math.isnan(value) and not math.isnan(beside):
                    figure = f"{name}_ms_{label}" if request is None else f"{request}_{name}_ms_{label}"
                    yield Figure(figure, value, beside, value / beside, "ms")
        for name, count in load.waits.items():
            yield Figure(f"backends_{name}_{label}", count, processors, count / processors, "backends")
        if load.refreshes:
            slowest, usual = max(load.refreshes), statistics.median(load.refreshes)
            yield Figure(f"slowest_refresh_s_{label}", slowest, usual, slowest / usual, "s")


def said(load: Load) -> str:
    """One rate in a sentence."""
    found = f"{load.rate:g} a second: {load.per_second:.3g} answered, p99 {load.quantile(0.99):.3g} ms"
    if load.errors:
        found += f", {load.errors} errors ({'; '.join(load.messages) or 'see the log of the server'})"
    most = sorted(load.events.items(), key=lambda each: -each[1])[:3]
    where = ", ".join(f"{count:.2g} {event}" for event, count in most if count >= 0.01)
    short = scarce(load.waits, _processors())
    words = {
        "processors": f"too few processors ({_processors()})",
        "wal": "waiting for the write-ahead log",
        "disk": "waiting for the disk",
        "locks": "waiting for locks",
        "else": "waiting inside the server",
    }
    if not load.kept_up:
        found += f"; it does not keep up: {words[short] if short else 'the clients, of which there are too few'}"
    elif short:
        found += f"; it keeps up, next to give way: {words[short]}"
    return found + (f"; backends that work: {where}" if where else "")


def _processors() -> int:
    return len(os.sched_getaffinity(0))


def _world(server: Server, scale: Scale) -> None:
    new_database(server, DATABASE)
    with connect(server, DATABASE) as connection:
        make_catalogue(connection, scale.videos)
        make_people(connection, scale.users, DECISIONS, scale.videos)
        make_model(connection, min(1_800, scale.videos))
        connection.execute("insert into two_tower.user_changes (user_id) select id from auth.users")
        connection.execute("call two_tower.refresh(null, interval '1 day')")
        connection.execute("vacuum (analyze)")


def measure(server: Server, scale: Scale, rate: float, send: Send, *, refreshing: bool = True) -> Load:
    """Requests at this rate, with or without refreshes."""
    waits: Counter[tuple[str | None, str | None]] = Counter()
    looks: list[None] = []
    refreshes: list[float] = []

    def look(connection: Connection) -> float:
        for kind, event, count in connection.execute(_ACTIVE).fetchall():
            waits[kind, event] += count
        looks.append(None)
        return LOOK

    def refresh(connection: Connection) -> float:
        refreshes.append(seconds(lambda: connection.execute("call two_tower.refresh()")))
        return PAUSE

    with _beside(server, look, *([refresh] if refreshing else [])):
        took, errors, messages = send(scale, rate)
    mean: dict[str, float] = dict.fromkeys(WAITS, 0.0)
    events: dict[str, float] = {}
    for (kind, event), count in waits.items():
        mean[resource(kind, event)] += count / max(len(looks), 1)
        events[f"{kind}:{event}" if kind else "on a processor"] = count / max(len(looks), 1)
    return Load(rate, scale.seconds, took, errors, messages, mean, events, tuple(refreshes))


@contextmanager
def _beside(server: Server, *works: Callable[[Connection], float]) -> Iterator[None]:
    """Runs each of ``works`` repeatedly on its own connection and thread, after the pause that it returns.

    When the block ends, raises what any of them raised.
    """
    stop, failed = threading.Event(), []

    def again(work: Callable[[Connection], float]) -> None:
        try:
            with connect(server, DATABASE) as connection:
                while not stop.is_set():
                    stop.wait(work(connection))
        except BaseException as error:  # otherwise the block would silently be measured without it
            failed.append(error)

    threads = [threading.Thread(target=again, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]


@contextmanager
def _postgrest(server: Server) -> Iterator[Send]:
    with rest.postgrest(make_conninfo(server.dsn, dbname=DATABASE)) as socket:

        def send(scale: Scale, rate: float) -> Answered:
            return rest.requests(
                socket,
                scale.mix,
                users=scale.users,
                videos=scale.videos,
                clients=scale.clients,
                rate=rate,
                seconds=scale.seconds,
            )

        yield send


def _pgbench(server: Server, scale: Scale, rate: float) -> Answered:
    program = server.installation.bindir / "pgbench"
    if not program.exists():
        raise UserError(
            f"{program.parent} has no pgbench, which makes the load", "install the programs that come with this server"
        )
    names = [name for name, weight in scale.mix.items() if weight > 0]
    with tempfile.TemporaryDirectory(prefix="two-tower-load-") as made:
        folder = Path(made)
        scripts: list[str] = []
        for name in names:
            (folder / f"{name}.sql").write_text(REQUESTS[name])
            scripts += ["-f", f"{name}.sql@{scale.mix[name]}"]
        command = [
            str(program), "-n", "-M", "prepared", *scripts, "-c", str(scale.clients),
            "-j", str(min(scale.clients, _processors())), "-R", f"{rate:g}", "-T", str(scale.seconds), "-l",
            "-D", f"users={scale.users}", "-D", f"videos={scale.videos}",
            make_conninfo(server.dsn, dbname=DATABASE),
        ]  # fmt: skip
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 2):  # 2: an error ended a client, which is counted
            raise UserError(f"pgbench failed: {done.stderr.strip()[-600:]}")
        took: dict[str, list[float]] = {name: [] for name in names}
        failed = 0
        for log in sorted(folder.glob("pgbench_log.*")):
            for line in log.read_text().splitlines():
                _, _, microseconds, script, *_ = line.split()
                if microseconds.isdigit():
                    took[names[int(script)]].append(int(microseconds) / 1e6)
                else:  # a deadlock, or a serialisation failure
                    failed += 1
    messages = re.findall(r"ERROR: +(.+)", done.stderr)
    failed += len(re.findall(r"client \d+ (?:script \d+ )?aborted", done.stderr))
    return {name: np.array(values) for name, values in took.items()}, failed, tuple(dict.fromkeys(messages))[:3]
