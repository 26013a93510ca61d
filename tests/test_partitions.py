"""An application whose decisions are partitioned: whatever is written, and wherever, is refreshed or found (I3)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from typer.testing import CliRunner

from conftest import Connection, NewDatabase, in_database
from test_refresh import CHANGES, assert_fresh, pending
from two_tower.cli.main import app
from two_tower.server.embedded import Server
from two_tower.server.migrate import migrate
from world_fixtures import load, make_world, one, refresh, state, tiny_model

WORLD = make_world()
APPLICATION = """
create schema auth;
create table auth.users (id uuid primary key, created_at timestamptz default now());
create table public.videos (
    id uuid primary key, product_url text unique, title text, description text, maker text, label text, series text,
    source text, thumbnail_url text, price numeric, duration_seconds int, distribution_started_at timestamptz,
    product_released_at timestamptz, published_at timestamptz, created_at timestamptz default now()
);
create table public.user_video_decisions (
    user_id uuid references auth.users on delete cascade, video_id uuid references public.videos on delete cascade,
    decision_type text, created_at timestamptz default now(), primary key (user_id, video_id)
) partition by hash (user_id);
create table public.decisions_0 partition of public.user_video_decisions for values with (modulus 2, remainder 0);
create table public.decisions_1 partition of public.user_video_decisions for values with (modulus 2, remainder 1);
create index on public.user_video_decisions (video_id);
"""
IN_A_PARTITION = (
    "insert into public.decisions_{n} select (select user_id from public.decisions_{n} limit 1), id, 'like'"
    " from public.videos on conflict (user_id, video_id) do update set decision_type = 'like'",
    "update public.decisions_{n} set decision_type = 'nope' where decision_type = 'like'",
    "delete from public.decisions_{n}",
)


@pytest.fixture(scope="module")
def application(cluster: Server) -> Iterator[str]:
    """Name of a database with the world in such an application's tables, and a model for it."""
    name = f"partitions_{uuid4().hex[:12]}"
    dsn = in_database(cluster.dsn, name)
    with psycopg.connect(cluster.dsn, autocommit=True) as admin:
        admin.execute(f"create database {name}".encode())
        with psycopg.connect(dsn, autocommit=True) as db:
            db.execute(APPLICATION)
            migrate(dsn)
            load(db, WORLD)
            tiny_model(db)
            refresh(db)
        yield name
        admin.execute(f"drop database {name} with (force)".encode())


@pytest.fixture
def dsn(application: str, database: NewDatabase) -> str:
    return database(template=application)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("change", list(CHANGES)[::4])
def test_row_4_writes_to_a_partitioned_table_are_refreshed(change: str, db: Connection) -> None:
    before = state(db)
    db.execute(CHANGES[change].encode())
    assert pending(db) != (0, 0)
    refresh(db)
    assert assert_fresh(db) != before


def test_row_4_writes_into_a_partition_are_refreshed(db: Connection) -> None:
    for number in range(2):
        for write in IN_A_PARTITION:
            before = state(db)
            db.execute(write.format(n=number).encode())
            refresh(db)
            assert assert_fresh(db) != before, write


def test_row_4_a_partition_that_comes_or_goes_is_found_by_verify(db: Connection, dsn: str) -> None:
    for move in (
        "alter table public.user_video_decisions detach partition public.decisions_1",
        "alter table public.user_video_decisions attach partition public.decisions_1"
        " for values with (modulus 2, remainder 1)",
        "truncate public.decisions_0",
    ):
        db.execute(move.encode())
        answers = [
            CliRunner().invoke(app, ["verify", "--dsn", dsn, "--json", *options]) for options in ([], ["--repair"])
        ]
        assert answers[0].exit_code == 1, move
        assert json.loads(answers[1].stdout)["marked"] > 0
        refresh(db)
        assert one(db, "select count(*) from two_tower.problems where what = 'triggers'") == 0
    assert_fresh(db)
    # What came back has its triggers again.
    db.execute(IN_A_PARTITION[1].format(n=1).encode())
    assert pending(db)[0] > 0


def test_migrating_again_logs_nobody_and_going_back_leaves_nothing(db: Connection, dsn: str) -> None:
    migrate(dsn)
    assert pending(db) == (0, 0)
    migrate(dsn, to="0")
    assert one(db, "select count(*) from pg_trigger where tgname like 'two_tower%%'") == 0
    assert one(db, "select count(*) from public.user_video_decisions") == len(WORLD.decisions)
