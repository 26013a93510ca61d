"""The refreshing backend and the whole server are killed at random times: nothing is lost or half done (I3)."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from conftest import remove_server, server_directory
from tiers import some
from two_tower.lifecycle import registry
from two_tower.server.embedded import Server
from two_tower.server.migrate import migrate
from world_fixtures import World, column, load, make_world, one, state, tiny_model

Connection = psycopg.Connection[Any]

pytestmark = pytest.mark.database

WORLD: World = make_world(60, 40, seed=3)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A cluster that this module may kill. It is durable, since a like must survive the kill."""
    made = Server(server_directory("two-tower-crash-"))
    made.start()
    migrate(made.dsn)
    with connect(made) as db:
        # Small, so that recovery is quick.
        for setting in ("shared_buffers = '32MB'", "max_wal_size = '64MB'", "restart_after_crash = on"):
            db.execute(f"alter system set {setting}".encode())
        load(db, WORLD)
        tiny_model(db)
        db.execute("select two_tower.unschedule_jobs()")
    yield made
    remove_server(made)


def connect(server: Server) -> Connection:
    """Connects, waiting until crash recovery is over."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return psycopg.connect(server.dsn, autocommit=True, connect_timeout=10)
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


class Likes(threading.Thread):
    """A client that likes and undoes without pause until the server is gone; it records acknowledged writes."""

    def __init__(self, server: Server, rng: random.Random) -> None:
        super().__init__()
        self.connection, self.rng = connect(server), rng
        self.certain: dict[tuple[UUID, UUID], str] = {}
        self.doubtful: tuple[UUID, UUID] | None = None
        """The pair whose write was never acknowledged."""

    def run(self) -> None:
        with suppress(psycopg.OperationalError), self.connection:
            while True:
                pair = self.rng.choice(WORLD.users), self.rng.choice(WORLD.videos)
                kind = self.rng.choice(["like", "like", "nope"])
                self.doubtful = pair
                self.connection.execute(
                    """insert into user_video_decisions values (%s, %s, %s) on conflict (user_id, video_id)
                    do update set decision_type = excluded.decision_type, created_at = now()""",
                    (*pair, kind),
                )
                self.certain[pair] = kind
                self.doubtful = None


def refreshes(connection: Connection) -> None:
    """Refreshes without pause until it is killed."""
    with suppress(psycopg.OperationalError), connection:
        while True:
            connection.execute("call two_tower.refresh()")


def assert_nothing_lost(db: Connection, likes: Likes) -> None:
    stored = {(u, v): d for u, v, d in db.execute("select user_id, video_id, decision_type from user_video_decisions")}
    certain = {pair: kind for pair, kind in likes.certain.items() if pair != likes.doubtful}
    assert {pair: stored.get(pair) for pair in certain} == certain
    db.execute("call two_tower.refresh()")
    assert one(db, "select pending_user_changes + pending_video_changes from two_tower.status") == 0
    assert column(db, "select error from two_tower.failed_changes") == []
    fresh = state(db)
    db.execute("call two_tower.rebuild()")
    assert state(db) == fresh


def mark_everything(db: Connection) -> None:
    """Work for a refresh, of videos and of users."""
    db.execute("update videos set price = random() * 40")
    db.execute("insert into two_tower.user_changes (user_id) select id from auth.users")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("seed", some(range(38), 8))
def test_i3_a_refreshing_backend_is_killed(server: Server, seed: int) -> None:
    # After the death of one backend, PostgreSQL restarts all of them, with a recovery.
    rng = random.Random(seed)
    with connect(server) as db:
        mark_everything(db)
    likes = Likes(server, rng)
    refresher = connect(server)
    pid = refresher.info.backend_pid
    worker = threading.Thread(target=refreshes, args=(refresher,))
    likes.start()
    worker.start()
    time.sleep(rng.uniform(0, 0.5))
    os.kill(pid, signal.SIGKILL)
    for thread in (worker, likes):  # the server ends all connections, and recovers
        thread.join(30)
        assert not thread.is_alive()
    with connect(server) as db:
        assert_nothing_lost(db, likes)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", some(range(100, 112), 4))
def test_i3_the_whole_server_is_killed(server: Server, seed: int) -> None:
    rng = random.Random(seed)
    with connect(server) as db:
        mark_everything(db)
    likes = Likes(server, rng)
    workers = [threading.Thread(target=refreshes, args=(connect(server),)) for _ in range(2)]
    for thread in (likes, *workers):
        thread.start()
    time.sleep(rng.uniform(0, 0.6))
    kill(server)
    for thread in (likes, *workers):
        thread.join(30)
        assert not thread.is_alive()
    server.start()
    with connect(server) as db:
        assert_nothing_lost(db, likes)


def test_a_rollback_that_was_reported_survives_the_kill(server: Server) -> None:
    with connect(server) as db:
        tiny_model(db, "second", seed=2)
        back = registry.roll_back(db)["model_version"]
        kill(server)
    server.start()
    with connect(server) as db:
        assert one(db, "select two_tower.active_version()") == back != "second"


def kill(server: Server) -> None:
    """kill -9 of the postmaster and all its children, and of no other process; returns when they are gone."""
    deadline = time.monotonic() + 30
    while send(server, signal.SIGKILL):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not server.running


def send(server: Server, what: signal.Signals) -> int:
    """Sends a signal to the server's processes, which are those at work in its data directory, the postmaster first;
    returns how many there were."""
    found = set[int]()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink() == server.data:
                found.add(int(process.name))
    postmaster = int((server.data / "postmaster.pid").read_text().split()[0])
    for pid in sorted(found, key=lambda pid: pid != postmaster):
        with suppress(ProcessLookupError):
            os.kill(pid, what)
    return len(found)
