"""One throwaway cluster for the whole run, shared by all workers, and a database of its own for each test.

Databases are cloned from a template that is migrated once. The cluster starts when the first test asks for it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import sqlparse
import typer.main
import typer.testing
from psycopg import sql

import supabase_fixture
import tiers
from two_tower.server.embedded import HOME, Server
from two_tower.server.installation import Installation
from two_tower.server.migrate import migrate
from world_fixtures import ENGINE, Client, load, make_world, tiny_model

SHARED = "TWO_TOWER_TEST_DIRECTORY"
TEMPLATE = "two_tower_template"
SHARED_MEMORY = "/dev/shm"
ROOM = 3 << 30
"""Bytes that must be free there. A server with its databases takes 0.1 GB, plus the WAL that it may keep."""
SERVERS = {"cluster", "cron", "cron_server", "fresh", "new_server", "supabase"}
"""Fixtures that start PostgreSQL; tests that start one by other means need the mark ``database`` themselves."""
OF_DATABASES = (
    "DATABASE_URL", "DATABASE_READ_URL",
    "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGSERVICE", "PGOPTIONS",
)  # fmt: skip
"""Variables that would make tests work on somebody's real database."""

Connection = psycopg.Connection[Any]
NewDatabase = Callable[..., str]
WorldOf = Callable[..., str]
Prepared = Callable[..., str]
Connect = Callable[..., Connection]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-update", action="store_true", help="write tests/golden/ anew instead of comparing with it"
    )
    tiers.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    """The controller creates the directory of the cluster; xdist's workers inherit its name.

    Torch uses one thread: of two, each would busy-wait for the other while another worker runs.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    remember_statements()
    remember_verbs()
    for name in OF_DATABASES:
        os.environ.pop(name, None)
    if not hasattr(config, "workerinput"):
        os.environ[SHARED] = str(server_directory("two-tower-tests-"))


def remember_statements() -> None:
    """Caches how yoyo splits a file into statements, which it does twice for each migrated database. Each caller gets a
    copy of the list, since yoyo changes it."""
    known = cache(sqlparse.split)

    def split(sql: str, encoding: str | None = None, strip_semicolon: bool = False) -> list[str]:
        return list(known(sql, encoding, strip_semicolon))

    sqlparse.split = split


def remember_verbs() -> None:
    """Caches the commands: Typer's runner would rebuild all of them for each that it runs, which takes 0.1 seconds."""
    vars(typer.testing)["_get_command"] = cache(typer.main.get_command)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker more than there are processors, since tests also wait for servers."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks the tests that need a server, which ``make check`` leaves out, and those that must run on one worker;
    deselects those that are left to ``make soak``."""
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.database)
        if shares_a_fixture(item) and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    tiers.thin(config, items)


def shares_a_fixture(item: pytest.Item) -> bool:
    """Whether the test shares a fixture with others of its module, which one worker creates for all of them."""
    info = getattr(item, "_fixtureinfo", None)
    return info is not None and any(found[-1].scope == "module" for found in info.name2fixturedefs.values())


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        remove_server(Server(os.environ.pop(SHARED)))


def in_memory() -> str | None:
    """``/dev/shm``, if it has room for servers, libraries may be loaded from it, and TMPDIR names no other place.

    Before ext4 creates a file, it processes those deleted in the last seconds one by one, so copying a database takes
    0.25 s after others were dropped; here it takes 0.02 s.
    """
    if os.environ.get("TMPDIR") or not Path(SHARED_MEMORY).is_dir():
        return None
    there = os.statvfs(SHARED_MEMORY)
    fits = there.f_bavail * there.f_frsize >= ROOM and not there.f_flag & os.ST_NOEXEC
    return SHARED_MEMORY if fits else None


def server_directory(prefix: str) -> Path:
    """A directory that the server's user can enter; pytest's own are closed to it when root runs the tests."""
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=in_memory()))
    directory.chmod(0o755)
    return directory


def new_cluster(prefix: str) -> Server:
    """A separate server, not started, with a copy of a cluster that is created once for the run: initdb takes longer
    than the rest of a start."""
    server = Server(server_directory(prefix), durable=False)
    copy_cluster(server.directory)
    preload(server)
    return server


def copy_cluster(directory: Path) -> None:
    made = Path(os.environ[SHARED]) / "made"
    with locked("made"):
        if not (made / "whole").exists():
            made.mkdir(mode=0o755, exist_ok=True)
            server = Server(made, durable=False)
            server.start()
            server.stop()
            (made / "whole").touch()
    subprocess.run(["cp", "-a", made / HOME, directory], check=True)


def preload(server: Server) -> None:
    """Lets a server that has a cluster, and is not running, import numpy and onnxruntime once for all its backends."""
    module = compiled(Path(__file__).parent / "preload.c", server.installation)
    libraries = ["pg_cron"] if "pg_cron" in server.installation.extensions else []
    with (server.data / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"shared_preload_libraries = '{','.join([*libraries, str(module)])}'\n")


def compiled(source: Path, installation: Installation) -> Path:
    """A module for PostgreSQL, compiled once for the run where every server can read it."""
    config = str(installation.bindir / "pg_config")
    asked = subprocess.run([config, "--includedir-server"], capture_output=True, text=True, check=True)
    headers, compiler = Path(asked.stdout.strip()), shutil.which("cc") or shutil.which("gcc")
    packages = f"gcc libc6-dev postgresql-server-dev-{installation.version}"
    assert compiler, f"there is no C compiler: apt-get install {packages}"
    assert (headers / "postgres.h").exists(), f"PostgreSQL's headers are missing: apt-get install {packages}"
    module = Path(os.environ[SHARED]) / f"{source.stem}.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", f"-I{headers}", "-o", str(module), str(source)]
    with locked(source.stem):
        if not module.exists():
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            module.chmod(0o755)
    return module


def remove_server(server: Server) -> None:
    if server.home.exists():
        server.stop()
        shutil.rmtree(server.home)
    shutil.rmtree(server.directory, ignore_errors=True)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Mutual exclusion among the workers."""
    with (Path(os.environ[SHARED]) / f"{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def in_database(dsn: str, name: str, user: str | None = None) -> str:
    """The same connection string for another database, and perhaps another role."""
    parts = urlsplit(dsn)
    netloc = f"{user}@{parts.netloc.rpartition('@')[2]}" if user else parts.netloc
    return urlunsplit(parts._replace(path=f"/{name}", netloc=netloc))


@pytest.fixture(scope="session")
def cluster() -> Server:
    """The throwaway cluster, running. Roles are shared by all tests; databases are not."""
    server = Server(os.environ[SHARED], durable=False)
    with locked("cluster"):
        if not server.running:
            copy_cluster(server.directory)
            preload(server)
            server.start()
    return server


def _has_template(connection: Connection) -> bool:
    return bool(connection.execute("select 1 from pg_database where datname = %s", (TEMPLATE,)).fetchone())


@pytest.fixture(scope="session")
def template(cluster: Server) -> str:
    """Name of the migrated template database. Nobody may stay connected to it."""
    with locked("template"), psycopg.connect(cluster.dsn, autocommit=True) as connection:
        if not _has_template(connection):
            draft = f"{TEMPLATE}_draft"
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(draft)))
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(draft)))
            migrate(in_database(cluster.dsn, draft))
            rename = sql.SQL("alter database {} rename to {}")
            connection.execute(rename.format(sql.Identifier(draft), sql.Identifier(TEMPLATE)))
    return TEMPLATE


@pytest.fixture(scope="session")
def world_of(cluster: Server, template: str) -> WorldOf:
    """``world_of(engine)``: name of a database with :func:`world_fixtures.make_world` in it and the random model ``v1``
    of that engine active, all fresh. ``world_of(engine, models=2)``: ``v2`` is active, ``v1`` stands by."""

    def make(engine: str, *, models: int = 1) -> str:
        name = f"two_tower_world_{engine}" + (f"_{models}" if models > 1 else "")
        source = make(engine, models=models - 1) if models > 1 else template
        with locked("world"), psycopg.connect(cluster.dsn, autocommit=True) as connection:
            if not connection.execute("select 1 from pg_database where datname = %s", (name,)).fetchone():
                draft = f"{name}_draft"
                connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(draft)))
                clone = sql.SQL("create database {} template {}")
                connection.execute(clone.format(sql.Identifier(draft), sql.Identifier(source)))
                with psycopg.connect(in_database(cluster.dsn, draft), autocommit=True) as db:
                    if models == 1:
                        load(db, make_world())
                    tiny_model(db, f"v{models}", seed=models if models > 1 else 0, engine=engine)
                    db.execute("analyze")
                rename = sql.SQL("alter database {} rename to {}")
                connection.execute(rename.format(sql.Identifier(draft), sql.Identifier(name)))
        return name

    return make


@pytest.fixture(scope="session")
def world_template(world_of: WorldOf) -> str:
    """Name of the world of the engine under test."""
    return world_of(ENGINE)


@pytest.fixture
def database(cluster: Server, request: pytest.FixtureRequest) -> Iterator[NewDatabase]:
    """``database()`` creates a migrated database and returns its DSN; ``database(empty=True)`` an empty one;
    ``template`` names another one to clone."""
    made: list[str] = []

    def make(*, empty: bool = False, template: str | None = None) -> str:
        source = "template1" if empty else template or str(request.getfixturevalue("template"))
        name = f"test_{uuid.uuid4().hex[:12]}"
        # Copied as files, which is twice as fast as by the WAL for such small databases.
        clone = sql.SQL("create database {} template {} strategy file_copy").format(
            sql.Identifier(name), sql.Identifier(source)
        )
        with psycopg.connect(cluster.dsn, autocommit=True) as connection:
            connection.execute(clone)
        made.append(name)
        return in_database(cluster.dsn, name)

    yield make
    with psycopg.connect(cluster.dsn, autocommit=True) as connection:
        for name in made:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@contextmanager
def borrowed(cluster: Server, template: str) -> Iterator[Connection]:
    """A connection to a clone of ``template`` for all tests of a module, which undo their changes. Its backend loads
    onnxruntime only once."""
    name = f"borrowed_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(cluster.dsn, autocommit=True) as admin:
        admin.execute(f"create database {name} template {template}".encode())
        with psycopg.connect(in_database(cluster.dsn, name), autocommit=True) as db:
            yield db
        admin.execute(f"drop database {name} with (force)".encode())


@pytest.fixture(scope="module")
def prepared(cluster: Server) -> Iterator[Prepared]:
    """``prepared(template, prepare, *arguments)``: name of a copy of ``template`` to which ``prepare(db, *arguments)``
    was applied, for each test of the module to copy."""
    made: dict[tuple[object, ...], str] = {}

    def make(template: str, prepare: Callable[..., object], *arguments: object) -> str:
        key = (template, prepare, *arguments)
        if key not in made:
            name = f"prepared_{uuid.uuid4().hex[:12]}"
            with psycopg.connect(cluster.dsn, autocommit=True) as admin:
                admin.execute(f"create database {name} template {template}".encode())
            made[key] = name
            with psycopg.connect(in_database(cluster.dsn, name), autocommit=True) as db:
                prepare(db, *arguments)
        return made[key]

    yield make
    with psycopg.connect(cluster.dsn, autocommit=True) as admin:
        for name in made.values():
            admin.execute(f"drop database {name} with (force)".encode())


@pytest.fixture
def dsn(database: NewDatabase, request: pytest.FixtureRequest) -> str:
    """A migrated database of this test's own; under the mark ``world``, with the small world and an active model, or
    ``world(models=2)``, with another one that stands by."""
    if mark := request.node.get_closest_marker("world"):
        return database(template=request.getfixturevalue("world_of")(ENGINE, **mark.kwargs))
    return database()


@pytest.fixture
def empty_dsn(database: NewDatabase) -> str:
    """An empty database of this test's own."""
    return database(empty=True)


@pytest.fixture
def world_dsn(database: NewDatabase, world_template: str) -> str:
    """A database of this test's own with the small world and an active model."""
    return database(template=world_template)


@pytest.fixture
def connect(dsn: str) -> Iterator[Connect]:
    """``connect()`` opens one more connection to ``dsn``, in autocommit mode and as superuser unless told; all are
    closed at the end."""
    opened: list[Connection] = []

    def open_one(*, autocommit: bool = True, user: str | None = None) -> Connection:
        target = in_database(dsn, urlsplit(dsn).path.removeprefix("/"), user)
        opened.append(psycopg.connect(target, autocommit=autocommit))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture
def db(connect: Connect) -> Connection:
    """A superuser's connection to ``dsn``, in autocommit mode."""
    return connect()


@pytest.fixture
def client(connect: Connect) -> Client:
    """A connection to ``dsn`` as PostgREST makes it."""
    return Client(connect(autocommit=False, user="authenticator"))


Minute = Callable[[Connection, Callable[[], bool]], None]


@pytest.fixture
def cron_minute(request: pytest.FixtureRequest) -> Minute:
    """``cron_minute(db, done)``: a minute of pg_cron, after which ``done()`` must be true. ``make soak`` waits for it.
    ``make test`` runs the jobs of each minute as their owners instead; only one test of ``test_jobs.py`` waits.
    """

    def pass_by(db: Connection, done: Callable[[], bool]) -> None:
        if request.config.getoption("--soak"):
            started = time.monotonic()
            while not done():
                assert time.monotonic() - started < 75
                time.sleep(0.5)
            return
        jobs = "select username, command from cron.job where active and schedule = '* * * * *'"
        for user, command in db.execute(jobs).fetchall():
            db.execute(sql.SQL("set session authorization {}").format(sql.Identifier(user)))
            db.execute(command)
            db.execute("reset session authorization")
        assert done()

    return pass_by


@pytest.fixture
def new_server() -> Iterator[Callable[..., Server]]:
    """``new_server()`` returns a server, not started, in a directory of its own, or a named one below that; with
    ``with_cluster``, it has a copied cluster."""
    made: list[tuple[Path, Server]] = []

    def make(below: str = ".", *, durable: bool = False, with_cluster: bool = False) -> Server:
        root = server_directory("two-tower-server-")
        (root / below).mkdir(parents=True, exist_ok=True)
        made.append((root, Server(root / below, durable=durable)))
        if with_cluster:
            copy_cluster(root / below)
        return made[-1][1]

    yield make
    for root, server in made:
        remove_server(server)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The packages that tests/node/package-lock.json pins by hash, installed once into build/node."""
    pinned, directory = Path(__file__).parent / "node", Path(__file__).parents[1] / "build" / "node"
    for program in ("node", "npm"):
        assert shutil.which(program), f"{program} is not installed; run ./setup.sh --test"
    lock = (pinned / "package-lock.json").read_text()
    with locked("npm"):
        marker = directory / "installed"
        if not marker.exists() or marker.read_text() != lock:
            directory.mkdir(parents=True, exist_ok=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(pinned / name, directory)
            command = ["npm", "ci", "--prefix", str(directory), "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
            assert done.returncode == 0, done.stderr
            marker.write_text(lock)
    return directory / "node_modules"


@pytest.fixture(scope="module")
def supabase() -> Iterator[supabase_fixture.Supabase]:
    with supabase_fixture.running() as cluster:
        yield cluster


@pytest.fixture
def new(supabase: supabase_fixture.Supabase) -> Iterator[Callable[..., str]]:
    """``new(variant)`` creates a database of this test's own, with the application, and returns its DSN."""
    made: list[str] = []

    def make(variant: supabase_fixture.Variant | None = None, *, application: bool = True) -> str:
        made.append(supabase.database(variant, application=application))
        return made[-1]

    yield make
    for dsn in made:
        supabase.drop(dsn)
