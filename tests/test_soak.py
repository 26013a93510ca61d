"""An application that likes without a pause for half an hour, beside all that the database does: nothing is lost (I3),
and nobody waits (I4). `make soak` runs it; ``SOAK_SECONDS`` makes it shorter, ``SOAK_LIKES`` says how many a second.
"""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from conftest import Connection, NewDatabase
from two_tower.lifecycle import registry
from two_tower.server.embedded import Server
from world_fixtures import column, make_world, one, random_model, refresh, register, schema_of, state

WORLD = make_world()
SECONDS = float(os.environ.get("SOAK_SECONDS", "1800"))
LIKES = int(os.environ.get("SOAK_LIKES", "1000"))
CLIENTS = 4

pytestmark = [pytest.mark.world, pytest.mark.slow, pytest.mark.timeout(int(3 * SECONDS) + 900)]


@dataclass
class Application:
    """Clients that like at a given rate together; how long each like took, and what went wrong."""

    dsn: str
    took: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event, seed: int) -> None:
        rng = random.Random(seed)
        mine = WORLD.videos[seed::CLIENTS]
        with psycopg.connect(self.dsn, autocommit=True) as own:
            due = time.monotonic()
            while not stop.is_set():
                due += CLIENTS / LIKES
                time.sleep(max(due - time.monotonic(), 0))
                started = time.monotonic()
                try:
                    own.execute(
                        """insert into public.user_video_decisions
                        select %s, %s, %s where exists (select from auth.users where id = %s)
                        on conflict (user_id, video_id) do update set decision_type = excluded.decision_type""",
                        (user := rng.choice(WORLD.users), rng.choice(mine), rng.choice(["like", "nope"]), user),
                    )
                except psycopg.errors.ForeignKeyViolation:
                    continue  # the user was deleted at that very moment
                except psycopg.Error as error:
                    self.errors.append(str(error))
                self.took.append(time.monotonic() - started)

    @contextmanager
    def liking(self) -> Iterator[None]:
        stop = threading.Event()
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(self.run, stop, seed) for seed in range(CLIENTS)]
            try:
                yield
            finally:
                stop.set()
            for client in clients:
                client.result()

    @property
    def p99(self) -> float:
        return sorted(self.took)[len(self.took) * 99 // 100]


@dataclass
class Database:
    """What the database does meanwhile, each in a thread of its own."""

    dsn: str
    longest: int = 0
    """Most users and videos that waited in the log at once."""
    versions: int = 1
    deleted: int = 0
    dumps: list[Path] = field(default_factory=list)

    def refresh(self, own: Connection) -> None:
        waiting = (
            "select (select count(*) from two_tower.pending_users) + (select count(*) from two_tower.video_changes)"
        )
        self.longest = max(self.longest, one(own, waiting))
        refresh(own)
        time.sleep(1)

    def keep_house(self, own: Connection) -> None:
        own.execute(
            "select two_tower.purge_logs('1 minute'), two_tower.update_popularity(), two_tower.verify_sample(20)"
        )
        own.execute("select two_tower.sync_user_embeddings('1 minute')")
        time.sleep(7)

    def retrain(self, own: Connection) -> None:
        self.versions += 1
        version = f"v{self.versions}"
        register(own, random_model(schema_of(own), seed=self.versions), version)
        registry.activate(own, version, lambda what, share: None, force=True)
        for (old,) in own.execute("select version from two_tower.model_versions where state = 'standby'").fetchall():
            own.execute("select two_tower.retire_model(%s)", (old,))
        time.sleep(SECONDS / 40)

    def delete(self, own: Connection) -> None:
        user = one(own, "select id from auth.users order by random() limit 1")
        own.execute("delete from auth.users where id = %s", (user,))
        own.execute("insert into auth.users (id) values (%s)", (user,))
        own.execute("update public.videos set price = random() * 40 where id = %s", (random.choice(WORLD.videos),))
        self.deleted += 1
        time.sleep(3)

    def dump(self, cluster: Server, to: Path) -> None:
        """Again where pg_dump fails because a version was retired between its list of tables and its locks."""
        command: list[Any] = [cluster.installation.bindir / "pg_dump", "-Fc", "-f", to, self.dsn]
        while (done := subprocess.run(command, check=False, capture_output=True, text=True)).returncode:
            gone = ("does not exist", "could not open relation", "cache lookup failed")
            assert any(words in done.stderr for words in gone), done.stderr
        self.dumps.append(to)

    def forever(self, work: Callable[[Connection], None], stop: threading.Event) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as own:
            while not stop.is_set():
                work(own)


def assert_right(db: Connection) -> None:
    """Incremental equals rebuild, and nothing was set aside. A backfill that a dump has caught halfway goes on."""
    for version in column(db, "select version from two_tower.model_versions where state = 'staged'"):
        db.execute("call two_tower.backfill_model(%s, true)", (version,))
    refresh(db)
    refresh(db)
    assert one(db, "select pending_user_changes + pending_video_changes from two_tower.status") == 0
    assert column(db, "select error from two_tower.failed_changes") == []
    fresh = state(db)
    db.execute("call two_tower.rebuild()")
    assert state(db) == fresh


@pytest.mark.soak
def test_i3_i4_half_an_hour_of_likes_beside_everything(
    cluster: Server, dsn: str, database: NewDatabase, tmp_path: Path
) -> None:
    alone = Application(dsn)
    with alone.liking():
        time.sleep(min(SECONDS / 6, 60))
    assert alone.errors == []

    beside, work, stop = Application(dsn), Database(dsn), threading.Event()
    with ThreadPoolExecutor(5) as pool, beside.liking():
        does = (work.refresh, work.refresh, work.keep_house, work.retrain, work.delete)
        running = [pool.submit(work.forever, each, stop) for each in does]
        until = time.monotonic() + SECONDS
        try:
            while time.monotonic() < until and not any(future.done() for future in running):
                time.sleep(SECONDS / 4)
                work.dump(cluster, tmp_path / f"{uuid4().hex}.dump")
        finally:
            stop.set()
        for future in running:
            future.result()

    figures = {
        "likes": len(beside.took), "per second": round(len(beside.took) / SECONDS), "p99 alone ms": alone.p99 * 1000,
        "p99 beside ms": beside.p99 * 1000, "longest log": work.longest, "versions": work.versions,
        "deleted": work.deleted,
    }  # fmt: skip
    print(figures)
    assert beside.errors == []
    assert beside.p99 <= 1.5 * alone.p99, figures
    assert work.longest <= 120 * LIKES, figures
    with psycopg.connect(dsn, autocommit=True) as db:
        assert column(db, "select error from two_tower.job_log where error is not null") == []
        assert_right(db)
    for dump in work.dumps:
        restored = database(empty=True)
        command: list[Any] = [cluster.installation.bindir / "pg_restore", "-d", restored, dump]
        subprocess.run(command, check=True, capture_output=True)
        with psycopg.connect(restored, autocommit=True) as db:
            assert_right(db)
