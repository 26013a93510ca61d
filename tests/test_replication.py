"""A database that subscribes to the application's tables: changes on the other server are refreshed here (I3)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from conftest import Connection, new_cluster, remove_server
from test_refresh import CHANGES, IDLE, assert_fresh, pending
from two_tower.server.migrate import migrate
from world_fixtures import column, load, make_world, one, refresh, state, tiny_model

# tests/test_nothing_lost.py checks in every run that sessions that replicate are logged.
pytestmark = [pytest.mark.database, pytest.mark.soak, pytest.mark.xdist_group("replication")]

WORLD = make_world()
TABLES = (
    "auth.users", "public.profiles", "public.tags", "public.performers", "public.videos", "public.video_tags",
    "public.video_performers", "public.user_video_decisions",
)  # fmt: skip
APPLIED = [name for name, change in CHANGES.items() if not change.startswith(("truncate auth", "truncate videos"))]
"""Without changes that a subscription refuses: it truncates no table to which only a table of the subscriber refers."""


@dataclass
class Pair:
    """The application's server, and the recommender's."""

    theirs: Connection
    ours: Connection

    def replicate(self) -> None:
        """Waits until ours has everything that theirs has committed."""
        turn = one(self.theirs, "update public.turns set n = n + 1 returning n")
        self.until(self.ours, "select coalesce(max(n), 0) = %s from public.turns", turn)

    def until(self, db: Connection, condition: str, *values: Any) -> None:
        deadline = time.monotonic() + 60
        while not one(db, condition, *values):
            assert time.monotonic() < deadline, condition
            time.sleep(0.05)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Theirs has the world and publishes it; ours began with empty tables and has copied it."""
    servers = [new_cluster(f"two-tower-{name}-") for name in ("theirs", "ours")]
    try:
        for server in servers:
            server.start()
        with psycopg.connect(servers[0].dsn, autocommit=True) as db:
            db.execute("alter system set wal_level = logical")
            db.execute("alter system set synchronous_commit = on")  # what is sent is what is flushed
        servers[0].stop()
        servers[0].start()
        for server in servers:
            migrate(server.dsn)
        with (
            psycopg.connect(servers[0].dsn, autocommit=True) as theirs,
            psycopg.connect(servers[1].dsn, autocommit=True) as ours,
        ):
            for db in (theirs, ours):
                db.execute("select two_tower.unschedule_jobs()")
                db.execute("update two_tower.settings set value = 'false' where name = 'status_expects_jobs'")
            load(theirs, WORLD)
            for db in (theirs, ours):
                db.execute("create table public.turns (one boolean primary key, n int)")
            theirs.execute("insert into public.turns values (true, 0)")
            theirs.execute(f"create publication application for table public.turns, {', '.join(TABLES)}".encode())
            made = Pair(theirs, ours)
            source = (
                f"host={theirs.info.host} port={theirs.info.port} dbname={theirs.info.dbname} user={theirs.info.user}"
            )
            ours.execute(f"create subscription likes connection '{source}' publication application".encode())
            made.until(ours, "select bool_and(srsubstate in ('r', 's')) from pg_subscription_rel")
            yield made
            ours.execute("drop subscription likes")
    finally:
        for server in servers:
            remove_server(server)


def test_row_4_the_initial_copy_of_a_subscription_is_refreshed(pair: Pair) -> None:
    assert pending(pair.ours) != (0, 0)
    refresh(pair.ours)
    tiny_model(pair.ours)
    assert set(column(pair.ours, "select id from public.videos")) == set(WORLD.videos)
    assert_fresh(pair.ours)
    assert [problem for (problem,) in pair.ours.execute("select what from two_tower.problems")] == []


def test_row_4_replicated_changes_are_refreshed(pair: Pair) -> None:
    """Each change starts from the original world; the apply worker fires row triggers, and those of TRUNCATE."""
    for change in APPLIED:
        restore(pair)
        before = state(pair.ours)
        pair.theirs.execute(CHANGES[change].encode())
        pair.replicate()
        refresh(pair.ours)
        assert assert_fresh(pair.ours) != before, change


def test_row_4_changes_without_effect_rewrite_nothing(pair: Pair) -> None:
    restore(pair)
    before = state(pair.ours)
    for change in IDLE.values():
        pair.theirs.execute(change.encode())
    pair.replicate()
    refresh(pair.ours)
    assert assert_fresh(pair.ours) == before


def restore(pair: Pair) -> None:
    """Restores the original world on both sides."""
    with pair.theirs.transaction():
        for table in ("auth.users", "public.videos", "public.tags", "public.performers"):
            pair.theirs.execute(f"delete from {table}".encode())
        load(pair.theirs, WORLD)
    pair.replicate()
    refresh(pair.ours)
    if one(pair.ours, "select two_tower.active_version()") is None:
        tiny_model(pair.ours)


def test_status_names_a_subscription_that_receives_nothing(pair: Pair) -> None:
    restore(pair)
    problem = "select detail, remedy from two_tower.problems where what = 'subscription'"
    pair.ours.execute("alter subscription likes disable")
    (detail, remedy) = pair.ours.execute(problem).fetchone() or ("", "")
    assert detail.startswith("the subscription likes, which brings changes of")
    assert "is disabled" in detail
    assert "user_video_decisions" in detail
    pair.ours.execute(remedy.encode())
    pair.until(pair.ours, "select not exists (select from two_tower.problems)")
    # A row that cannot be applied: the worker ends and is restarted, again and again.
    video = one(pair.theirs, "select id from public.videos limit 1")
    pair.ours.execute(
        "insert into public.tags (id, name) values ('ffffffff-ffff-ffff-ffff-ffffffffffff', 'in the way')"
    )
    pair.theirs.execute("insert into public.tags (id, name) values ('ffffffff-ffff-ffff-ffff-ffffffffffff', 'new')")
    pair.theirs.execute("insert into public.video_tags values (%s, 'ffffffff-ffff-ffff-ffff-ffffffffffff')", (video,))
    pair.until(
        pair.ours,
        "select exists (select from two_tower.problems where what = 'subscription' and detail like '%%does not run%%')",
    )
    pair.ours.execute("delete from public.tags where name = 'in the way'")
    pair.until(pair.ours, "select count(*) > 0 from public.tags where name = 'new'")
    pair.replicate()
    refresh(pair.ours)
    assert_fresh(pair.ours)
    pair.ours.execute("alter table public.user_video_decisions disable trigger two_tower_row")
    detail = one(pair.ours, "select detail from two_tower.problems where what = 'triggers'")
    assert "user_video_decisions" in detail
    assert "two_tower_row" in detail
    pair.ours.execute("alter table public.user_video_decisions enable replica trigger two_tower_row")
