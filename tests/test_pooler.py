"""Every verb through PgBouncer in transaction mode, with an application in the same pool that must notice nothing.

Behind such a pooler, a transaction gets any free session: settings, prepared statements and locks of one client would
affect the next.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import numpy as np
import polars as pl
import psycopg
import pytest

from conftest import NewDatabase, in_database
from two_tower import shards
from two_tower.database import is_pooled, open_connection
from two_tower.errors import UserError
from two_tower.lifecycle import registry
from two_tower.server.connection import connect
from two_tower.server.embedded import Server
from two_tower.world import generate
from ui_browser import Visitor, chromium, served
from world_fixtures import column, one

SERVERS = 4
"""Sessions of the pool: few, so that all of them are reused."""

REFRESHER = "pooler_refresher"
"""A login that may switch to ``service_role``."""

pytestmark = [pytest.mark.database, pytest.mark.xdist_group("pooler")]

LEFT = r"""
select name, setting from pg_settings
where source = 'session'
    and name not in ('application_name', 'client_encoding', 'DateStyle', 'IntervalStyle', 'TimeZone')
    and name not like 'transaction\_%'
union all select 'role', current_user where current_user <> session_user
union all select 'prepared', name from pg_prepared_statements
union all select 'advisory lock', objid::text from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'
union all select 'listens', pg_listening_channels()
union all select 'temporary', relname::text from pg_class where relnamespace = pg_my_temp_schema()
union all select 'cursor', name from pg_cursors where is_holdable
"""
"""State of a session that would affect its next client."""


@dataclass
class Pooler:
    """PgBouncer in front of the cluster of the tests."""

    cluster: Server
    socket: Path
    process: subprocess.Popen[bytes]

    def dsn(self, dsn: str) -> str:
        """The same database and role through the pooler."""
        parts = urlsplit(dsn)
        role = parts.username or "postgres"
        return f"postgresql://{role}@{parts.path}?host={quote(str(self.socket), safe='')}&port=6432"

    def left_behind(self, dsn: str) -> list[tuple[str, str]]:
        """State that is left in any session of the pool; transactions hold all of them at the same time."""
        held = [psycopg.connect(self.dsn(dsn), prepare_threshold=None) for _ in range(SERVERS)]
        try:
            return [row for connection in held for row in connection.execute(LEFT).fetchall()]
        finally:
            for connection in held:
                connection.close()


@pytest.fixture(scope="module")
def pooler(cluster: Server, template: str) -> Iterator[Pooler]:
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "there is no pgbouncer: ./setup.sh --test"
    to = parse_qs(urlsplit(cluster.dsn).query)
    with tempfile.TemporaryDirectory(prefix="two-tower-pooler-", dir="/tmp") as name:  # a socket's path is short
        directory = Path(name)
        directory.chmod(0o777)
        (directory / "users").write_text(f'"postgres" ""\n"authenticator" ""\n"{REFRESHER}" ""\n')
        (directory / "ini").write_text(
            f"""[databases]
            * = host={to["host"][0]} port={to["port"][0]}
            [pgbouncer]
            listen_addr =
            unix_socket_dir = {directory}
            listen_port = 6432
            auth_type = trust
            auth_file = {directory}/users
            auth_user = postgres
            auth_query = select usename, passwd from pg_catalog.pg_shadow where usename = $1
            pool_mode = transaction
            default_pool_size = {SERVERS}
            logfile = {directory}/log
            """
        )
        as_user = ["-u", "postgres"] if os.geteuid() == 0 else []
        if as_user:
            os.chown(directory, pwd.getpwnam("postgres").pw_uid, -1)
        with subprocess.Popen([program, "-q", *as_user, str(directory / "ini")]) as process:
            found = Pooler(cluster, directory, process)
            try:
                deadline = time.monotonic() + 20
                while not (directory / ".s.PGSQL.6432").exists():
                    assert process.poll() is None, (directory / "log").read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                yield found
            finally:
                process.send_signal(signal.SIGKILL)


def two_tower(dsn: str, directory: Path, *words: str, code: int = 0) -> str:
    """The output, both streams, of a verb in a separate process."""
    command = [str(Path(sys.executable).parent / "two-tower"), *words]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TWO_TOWER_TESTS")} | {"DATABASE_URL": dsn}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == code, f"{words} exits {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


class Application:
    """Another client of the pool, which repeats a transaction with a role of its own."""

    def __init__(self, dsn: str) -> None:
        self.dsn, self.errors, self.turns = dsn, list[str](), 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            try:
                with psycopg.connect(self.dsn, prepare_threshold=None) as own:
                    own.execute("set local role anon")
                    own.execute("select count(*) from popular_videos_now(5)")
                self.turns += 1
            except psycopg.Error as error:
                self.errors.append(str(error))

    def __enter__(self) -> Application:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def write_inputs(directory: Path, dsn: str) -> None:
    """Files for the verbs that read some: reviews, vectors of pictures, and vectors of another program."""
    with psycopg.connect(dsn) as db:
        urls = column(db, "select product_url from public.videos order by id")
        ids = {kind: column(db, f"select id from {table} order by id") for kind, table in TABLES.items()}
    stars = (f"{url},reviewer {n % 9},{1 + n % 5}" for n, url in enumerate(urls))
    (directory / "reviews.csv").write_text("\n".join(["product_url,reviewer_id,stars", *stars]))
    random = np.random.default_rng(1)
    pictures = {"product_url": urls, "vector": random.normal(size=(len(urls), 32)).tolist()}
    pl.DataFrame(pictures).write_parquet(directory / "pictures.parquet")
    for kind, those in ids.items():
        theirs = {
            f"{kind}_id": [str(each) for each in those],
            "embedding": random.normal(size=(len(those), 128)).tolist(),
        }
        pl.DataFrame(theirs).write_parquet(directory / f"{kind}.parquet")


TABLES = {"video": "public.videos", "user": "auth.users"}

VERBS = """
import vectors pictures.parquet --encoder pictures
import reviews reviews.csv --chunk 50
model upload-vectors video.parquet --users user.parquet --version theirs
model activate theirs --force
model rollback
train --version second
ab start {first} second --force --workers 2
ab status
ab stop --winner second
verify
verify --repair
verify --sample 10
user-data {user}
forget {user}
recommend --all --output recs.csv
recommend --all --output recs.csv --workers 2
model export out
model register out --version third
model backfill third --workers 3 --force
model publish file://{here}/store
model fetch file://{here}/store
sync-videos --skip-fetch --skip-ingest
evaluate third
model retire third
dataset export data
"""
"""What runs in this order through the pooler, after a first version is active."""


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_every_verb_leaves_the_pool_as_it_found_it(pooler: Pooler, database: NewDatabase, tmp_path: Path) -> None:
    dsn = database(empty=True)
    through = pooler.dsn(dsn)
    generate(tmp_path / "world", users=200, videos=200)

    def verb(*words: str, code: int = 0) -> str:
        said = two_tower(through, tmp_path, *words, code=code)
        assert pooler.left_behind(dsn) == [], words
        return said

    verb("migrate", "--check")
    verb("migrate")
    with Application(through) as application:
        verb("migrate")
        verb("doctor")
        verb("import", "catalog", "world/catalog.csv")
        verb("import", "decisions", "world/decisions.csv", "--create-users")
        verb("train")
        verb("model", "activate")
        verb("model", "list")
        verb("status")
        verb("refresh")
        verb("evaluate")
        verb("retrain")
        with psycopg.connect(dsn, autocommit=True) as db:
            states = column(db, "select state from two_tower.model_versions order by number")
        assert states == ["standby", "active"]
        verb("model", "rollback")
        verb("metrics")
        write_inputs(tmp_path, dsn)
        with psycopg.connect(dsn) as db:
            known = {
                "first": one(db, "select two_tower.active_version()"),
                "user": one(db, "select min(user_id::text) from public.user_video_decisions"),
                "here": tmp_path,
            }
        for line in VERBS.strip().splitlines():
            verb(*(word.format(**known) for word in line.split()))
        assert len((tmp_path / "recs.csv").read_text().splitlines()) > 200
        with program(through, tmp_path, "refresh", "--every", "0.1") as service:
            time.sleep(3)
            assert service.poll() is None
            assert pooler.left_behind(dsn) == []
        with served(through, tmp_path) as url, chromium() as browser:
            visitor = Visitor(browser, url)
            for name in ("Users", "Models", "Freshness"):
                visitor.go(name)
                assert pooler.left_behind(dsn) == [], name
    assert application.errors == []
    assert application.turns > 100


def test_a_role_that_is_the_default_of_a_login_needs_no_options(pooler: Pooler, database: NewDatabase) -> None:
    dsn = database()
    through = pooler.dsn(in_database(dsn, urlsplit(dsn).path.removeprefix("/"), REFRESHER))
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute(f"create role {REFRESHER} login noinherit in role service_role".encode())
        try:
            with pytest.raises(UserError, match="the connection pooler refuses the options") as refused:
                connect(f"{through}&options=-c%20role%3Dservice_role")
            assert "alter role LOGIN set role = service_role" in (refused.value.hint or "")
            db.execute(f"alter role {REFRESHER} set role = service_role".encode())
            with connect(through, autocommit=True, writes=True) as service:
                assert one(service, "select current_user::text") == "service_role"
                registry.refresh(service, lambda what, share: None)
            with connect(dsn) as direct, connect(through) as pooled:
                assert (is_pooled(direct), is_pooled(pooled)) == (False, True)
        finally:
            db.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{REFRESHER}'".encode())
            db.execute(f"drop role {REFRESHER}".encode())


@contextmanager
def program(dsn: str, directory: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A verb that runs until a signal."""
    command = [str(Path(sys.executable).parent / "two-tower"), *words]
    with subprocess.Popen(command, cwd=directory, env=os.environ | {"DATABASE_URL": dsn}) as process:
        try:
            yield process
        finally:
            process.terminate()


def test_a_query_on_a_shard_goes_on_while_its_pooler_is_paused(
    pooler: Pooler, database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends no query, but a new client waits if the pooler has to look up its role."""
    monkeypatch.setattr(shards, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(shards, "SILENT_SECONDS", 2)
    dsn = database()
    with psycopg.connect(dsn) as owner:
        owner.execute("create role pooler_unlisted login")
    unlisted = pooler.dsn(dsn).replace("//postgres@", "//pooler_unlisted@")
    with open_connection(unlisted, autocommit=True) as connection:
        pause = threading.Timer(1, pooler.process.send_signal, [signal.SIGUSR1])
        pause.start()
        try:
            done, failures = shards.ask_each({"east": connection}, lambda _, db: one(db, "select count(pg_sleep(5))"))
        finally:
            pause.join()
            pooler.process.send_signal(signal.SIGUSR2)
            with psycopg.connect(dsn) as owner:
                owner.execute("drop role pooler_unlisted")
    assert (done, failures) == ({"east": 1}, {})
