"""An application writes likes without pause for half an hour, during all work of the database: nothing is lost (I3),
and nobody waits for a lock (I4). `make soak` runs it; ``SOAK_SECONDS`` makes it shorter, ``SOAK_LIKES`` is the number
of likes per second.
"""

from __future__ import annotations

import math
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
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


LIKE = """\
\\set u random(1, :users)
\\set v random(1, :videos)
\\set decision random(1, 2)
insert into public.user_video_decisions (user_id, video_id, decision_type)
select u.id, v.id, case :decision::int when 1 then 'like' else 'nope' end
from numbered_users n join auth.users u on u.id = n.id, numbered_videos v
where n.number = :u::int and v.number = :v::int for key share of u
on conflict (user_id, video_id) do update set decision_type = excluded.decision_type;
"""
"""For pgbench: its clients wait only for the database, not for other threads of this process. A user who is deleted
between the read and the write would end the client; hence the lock.
"""


@dataclass
class Application:
    """Clients that write likes at a given total rate; each like's time in seconds counts from when it was due."""

    cluster: Server
    dsn: str
    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        (self.folder / "like.sql").write_text(LIKE)
        with psycopg.connect(self.dsn, autocommit=True) as own:
            for name, of in (("users", "auth.users"), ("videos", "public.videos")):
                own.execute(
                    f"""create table if not exists numbered_{name} (number int generated always as identity, id uuid);
                    create unique index if not exists numbered_{name}_number on numbered_{name} (number);
                    truncate numbered_{name} restart identity;
                    insert into numbered_{name} (id) select id from {of};
                    analyze numbered_{name}"""
                )

    @contextmanager
    def liking(self, seconds: float) -> Iterator[None]:
        """Writes likes for so long, during the block; waits for the last."""
        pgbench: list[Any] = [
            self.cluster.installation.bindir / "pgbench", "-n", "-M", "prepared", "-f", "like.sql", "-c", str(CLIENTS),
            "-R", str(LIKES), "-T", str(math.ceil(seconds)), "-D", f"users={len(WORLD.users)}",
            "-D", f"videos={len(WORLD.videos)}", "-l", self.dsn,
        ]  # fmt: skip
        with subprocess.Popen(
            pgbench, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            with psycopg.connect(self.dsn, autocommit=True) as own:
                clients = "select pid from pg_stat_activity where application_name = 'pgbench'"
                while len(backends := column(own, clients)) < CLIENTS and process.poll() is None:
                    time.sleep(0.1)
            for pid in (process.pid, *backends):
                come_first(pid)
            yield
            said, _ = process.communicate()
        assert process.returncode == 0, said

    def took(self) -> list[float]:
        lines = (line.split() for log in self.folder.glob("pgbench_log.*") for line in log.read_text().splitlines())
        return sorted(int(line[2]) / 1e6 for line in lines)


@dataclass
class Database:
    """The work of the database meanwhile, each kind in a thread of its own."""

    dsn: str
    longest: int = 0
    """Most users and videos that were pending at once."""
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
        """Repeated if pg_dump fails because a version was retired between its list of tables and its locks."""
        command: list[Any] = [cluster.installation.bindir / "pg_dump", "-Fc", "-f", to, self.dsn]
        while (done := subprocess.run(command, check=False, capture_output=True, text=True)).returncode:
            gone = ("does not exist", "could not open relation", "cache lookup failed")
            assert any(words in done.stderr for words in gone), done.stderr
        self.dumps.append(to)

    def forever(self, work: Callable[[Connection], None], stop: threading.Event) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as own:
            while not stop.is_set():
                work(own)


def come_first(pid: int) -> None:
    """Gives a process real-time priority, if permitted, so that likes wait only for the database.

    Here two cores run more than two processes, and a kernel without preemption lets a process finish its tick of 4 ms,
    whatever its niceness, which would be most of the measured time.
    """
    with suppress(PermissionError, ProcessLookupError):
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))


def assert_right(db: Connection) -> None:
    """Asserts that rows equal a rebuild, with nothing set aside. A backfill interrupted by a dump is continued."""
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
    alone = Application(cluster, dsn, tmp_path / "alone")
    with alone.liking(min(SECONDS / 6, 60)):
        pass

    beside, work, stop = Application(cluster, dsn, tmp_path / "beside"), Database(dsn), threading.Event()
    with ThreadPoolExecutor(5) as pool, beside.liking(SECONDS):
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

    before, after = alone.took(), beside.took()
    figures = {
        "likes": len(after), "per second": round(len(after) / SECONDS), "longest log": work.longest,
        "versions": work.versions, "deleted": work.deleted,
    } | {
        f"p{share} {name} ms": round(took[len(took) * share // 100] * 1000, 2)
        for share in (50, 95, 99) for name, took in (("alone", before), ("beside", after))
    }  # fmt: skip
    print(figures)
    with psycopg.connect(dsn, autocommit=True) as db:
        assert column(db, "select error from two_tower.job_log where error is not null") == []
        assert_right(db)
    for dump in work.dumps:
        restored = database(empty=True)
        command: list[Any] = [cluster.installation.bindir / "pg_restore", "-d", restored, dump]
        subprocess.run(command, check=True, capture_output=True)
        with psycopg.connect(restored, autocommit=True) as db:
            assert_right(db)
    assert work.longest <= 120 * LIKES, figures
    assert figures["p99 beside ms"] <= 1.5 * figures["p99 alone ms"], figures
