"""A dump taken during writes and restored into a new cluster is a working system: same answers, nothing lost."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors
from typer.testing import CliRunner

import catalogue_dump
from conftest import Connection, Minute, in_database, locked, remove_server, server_directory
from two_tower.cli.main import app
from two_tower.server.embedded import Server
from two_tower.server.migrate import migrate
from world_fixtures import Client, column, load, make_world, one, refresh, tiny_model

pytestmark = [pytest.mark.database, pytest.mark.soak, pytest.mark.xdist_group("cron")]

WORLD = make_world()
ME, OTHER = WORLD.usual, WORLD.many
VECTOR = "select embedding::text from user_embeddings where user_id = %s"
JOBS = "select jobname, schedule, command, database, username, active from cron.job order by jobname"


@dataclass(frozen=True)
class Backup:
    """The two files, and the state of the system at the time of the dump."""

    dump: Path
    roles: Path
    rows: dict[str, Any]
    answers: list[Any]
    jobs: list[Any]


@contextmanager
def new_cluster(prefix: str) -> Iterator[Server]:
    server = Server(server_directory(prefix), durable=False)
    with locked("cron"):
        server.start()
    yield server
    remove_server(server)


@pytest.fixture(scope="module")
def source() -> Iterator[Server]:
    """A system in use: an active version, one on standby, jobs in pg_cron."""
    with new_cluster("two-tower-source-") as server:
        migrate(server.dsn)
        with psycopg.connect(server.dsn, autocommit=True) as db:
            load(db, WORLD)
            tiny_model(db, "v1")
            tiny_model(db, "v2", seed=1)
            db.execute("select two_tower.schedule_jobs()")
        yield server


@pytest.fixture(scope="module")
def backup(source: Server, tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """Created while users like videos, videos are re-tagged, and refreshes run."""
    directory = tmp_path_factory.mktemp("backup")
    bindir = source.installation.bindir
    stop, failed = threading.Event(), []

    def busy(work: Callable[[Connection, int], None]) -> threading.Thread:
        def run() -> None:
            try:
                with psycopg.connect(source.dsn, autocommit=True) as db:
                    for turn in itertools.count():
                        if stop.is_set():
                            return
                        work(db, turn)
            except Exception as error:  # raised below, in the fixture
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def like(db: Connection, turn: int) -> None:
        user, video = WORLD.users[turn % len(WORLD.users)], WORLD.videos[turn * 7 % len(WORLD.videos)]
        db.execute(
            """insert into user_video_decisions values (%s, %s, 'like')
            on conflict (user_id, video_id) do update set decision_type = 'nope'""",
            (user, video),
        )

    def tag(db: Connection, turn: int) -> None:
        video, other = WORLD.videos[turn % len(WORLD.videos)], WORLD.tags[turn % len(WORLD.tags)]
        db.execute("insert into video_tags values (%s, %s) on conflict do nothing", (video, other))
        db.execute("delete from video_tags where video_id = %s and tag_id <> %s", (video, other))

    def drain(db: Connection, turn: int) -> None:
        refresh(db)
        time.sleep(0.2)

    threads = [busy(work) for work in (like, tag, drain)]
    try:
        with psycopg.connect(source.dsn) as snapshot:
            snapshot.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            while not one(snapshot, "select count(*) from two_tower.pending_users"):
                snapshot.rollback()
            name = one(snapshot, "select pg_export_snapshot()")
            options = ["--format=custom", f"--snapshot={name}", f"--file={directory / 'dump'}"]
            run([bindir / "pg_dump", *options, source.dsn])
            run([bindir / "pg_dumpall", "--roles-only", f"--file={directory / 'roles.sql'}", "-d", source.dsn])
            taken = Backup(
                directory / "dump", directory / "roles.sql", rows(snapshot), answers(snapshot),
                snapshot.execute(JOBS.encode()).fetchall(),
            )  # fmt: skip
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed
    return taken


@pytest.fixture(scope="module")
def target(backup: Backup) -> Iterator[Server]:
    """A new cluster with the other's roles and the dumped database."""
    with new_cluster("two-tower-target-") as server:
        bindir = server.installation.bindir
        said = run([bindir / "psql", "-q", "-f", backup.roles, server.dsn]).stderr
        assert re.findall(r"ERROR: +(.*)", said) == ['role "postgres" already exists']
        run([bindir / "pg_restore", "--single-transaction", "--exit-on-error", "-d", server.dsn, backup.dump])
        yield server


@pytest.fixture(scope="module")
def copy(target: Server, backup: Backup, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The dump restored in parallel into a database of another name, without pg_cron, which cannot exist there."""
    bindir = target.installation.bindir
    with psycopg.connect(target.dsn, autocommit=True) as db:
        db.execute("create database copy")
    dsn = in_database(target.dsn, "copy")
    contents = run([bindir / "pg_restore", "--list", backup.dump]).stdout
    chosen = tmp_path_factory.mktemp("list") / "contents"
    chosen.write_text("".join(line + "\n" for line in contents.splitlines() if not re.search(r" (pg_)?cron\b", line)))
    options = ["--jobs=2", "--exit-on-error", f"--use-list={chosen}"]
    run([bindir / "pg_restore", *options, "-d", dsn, backup.dump])
    return dsn


@pytest.fixture
def db(copy: str) -> Iterator[Connection]:
    with psycopg.connect(copy, autocommit=True) as connection:
        yield connection


def run(command: list[Any]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def rows(db: Connection) -> dict[str, Any]:
    """Count and hash of the rows of every table."""
    tables = column(
        db,
        """select c.oid::regclass::text from pg_class c
        where c.relnamespace in ('public'::regnamespace, 'two_tower'::regnamespace, to_regnamespace('auth'))
            and c.relkind = 'r' order by 1""",
    )
    query = (
        "select count(*) || ' ' || coalesce(md5(string_agg(t::text, '' order by t::text collate \"C\")), '') from {} t"
    )
    return {table: one(db, query.replace("{}", table)) for table in tables}


def answers(db: Connection) -> list[Any]:
    """The recommendations of all users, and the similar videos of all videos."""
    batch = "select * from two_tower.recommend_batch(array(select id from auth.users), 20) order by user_id, rank"
    similar = """select v.id, s.video_id, s.score from (select id from videos order by id limit 20) v
        cross join lateral similar_videos(v.id, 10) s order by v.id, s.rank"""
    return [*db.execute(batch.encode()), *db.execute(similar.encode())]


def like_another(db: Connection) -> None:
    """``ME`` likes a video without a decision."""
    db.execute(
        """insert into user_video_decisions (user_id, video_id, decision_type)
        select %(me)s, v.id, 'like' from videos v
        where v.id not in (select d.video_id from user_video_decisions d where d.user_id = %(me)s) limit 1""",
        {"me": ME},
    )


def status(dsn: str) -> tuple[int, list[str]]:
    """Exit code of ``two-tower status``, and the problems that it reports."""
    result = CliRunner().invoke(app, ["status", "--json", "--dsn", dsn])
    return result.exit_code, [problem["what"] for problem in json.loads(result.stdout)["problems"]]


def test_a_restored_database_has_every_row_and_gives_every_answer(db: Connection, backup: Backup) -> None:
    assert rows(db) == backup.rows
    assert answers(db) == backup.answers
    assert len(backup.answers) > 1000


def test_work_pending_in_the_dump_is_finished_after_the_restore(db: Connection, copy: str) -> None:
    assert one(db, "select count(*) from two_tower.pending_users") > 0
    refresh(db)
    vectors = (
        "select e::text from (select model_version, user_id, embedding from two_tower.user_embeddings) e order by 1"
    )
    features = "select (to_jsonb(f) - 'updated_at')::text from user_features f order by 1"
    refreshed = column(db, vectors), column(db, features)
    db.execute("call two_tower.rebuild()")
    assert (column(db, vectors), column(db, features)) == refreshed
    assert status(copy) == (0, [])


def test_a_restored_database_goes_on_working(db: Connection) -> None:
    """Triggers log, refreshes compute vectors, versions are activated and rolled back."""
    before = one(db, VECTOR, ME)
    like_another(db)
    refresh(db)
    assert one(db, VECTOR, ME) != before
    assert one(db, "select two_tower.rollback_model() ->> 'model_version'") == "v1"
    assert one(db, "select two_tower.rollback_model() ->> 'model_version'") == "v2"
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="what is registered does not change"):
        db.execute("update two_tower.model_files set content = ''")


def test_row_level_security_is_restored(copy: str) -> None:
    with psycopg.connect(in_database(copy, "copy", "authenticator")) as connection:
        client = Client(connection)
        assert len(client.rpc("authenticated", ME, "recommend_videos", limit=20)) == 20
        with client.as_("authenticated", ME):
            assert column(connection, "select distinct user_id from user_video_decisions") == [ME]
            assert column(connection, "select user_id from user_embeddings") == [ME]
        with client.as_("anon"), pytest.raises(errors.InsufficientPrivilege), connection.transaction():
            connection.execute("select from user_video_decisions")
        with client.as_("authenticated", ME), pytest.raises(errors.InsufficientPrivilege), connection.transaction():
            connection.execute("insert into user_video_decisions values (%s, %s, 'like')", (OTHER, WORLD.videos[0]))


def test_schema_owners_and_privileges_are_the_same(source: Server, target: Server) -> None:
    def dumped(server: Server) -> list[str]:
        text = run([server.installation.bindir / "pg_dump", "--schema-only", server.dsn]).stdout
        # A view is printed from its parsed form, which names columns that its source left unnamed.
        text = re.sub(r"(?s)\n(CREATE VIEW .*?) AS\n.*?;\n", r"\n\1;\n", text)
        return [line for line in text.splitlines() if not re.match(r"\\(un)?restrict", line)]

    assert dumped(target) == dumped(source)
    texts = []
    for server in (source, target):
        with psycopg.connect(server.dsn) as db:
            texts.append(catalogue_dump.privileges(db, ("auth", "extensions", "public", "two_tower")))
    assert texts[0] == texts[1]


def test_migrating_a_restored_database_changes_nothing(target: Server) -> None:
    with psycopg.connect(target.dsn) as db:
        before = catalogue_dump.privileges(db)
    assert migrate(target.dsn) == {"applied": [], "rolled_back": []}
    with psycopg.connect(target.dsn) as db:
        assert catalogue_dump.privileges(db) == before


def test_scheduled_jobs_are_restored_and_run(target: Server, backup: Backup, cron_minute: Minute) -> None:
    with psycopg.connect(target.dsn, autocommit=True) as db:
        assert db.execute(JOBS.encode()).fetchall() == backup.jobs
        assert len(backup.jobs) == 6
        before = one(db, VECTOR, ME)
        like_another(db)
        cron_minute(db, lambda: one(db, VECTOR, ME) != before)
    assert status(target.dsn) == (0, [])
