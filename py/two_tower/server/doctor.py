"""Checks a PostgreSQL for what the recommender needs. Each warning and failure says how to mend it.

Works with any server and leaves nothing behind: what must be tried is tried in a transaction that is rolled back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
from psycopg import sql

from two_tower.database import require_migrated
from two_tower.errors import UserError
from two_tower.rows import one
from two_tower.server.contract import EXTENSIONS, NEWEST, OLDEST, VECTOR_NEEDED

Level = Literal["ok", "info", "warn", "fail"]
Connection = psycopg.Connection[Any]

VECTOR_WANTED = (0, 8, 4)  # HNSW vacuum
MAINTENANCE_WANTED_MB = 256


@dataclass(frozen=True)
class Check:
    """One finding. ``ok`` is false only for a fault that keeps the recommender from working (level ``fail``)."""

    name: str
    ok: bool
    level: Level
    detail: str
    remedy: str | None = None


def _well(name: str, detail: str, level: Level = "ok") -> Check:
    return Check(name, True, level, detail)


def _warn(name: str, detail: str, remedy: str) -> Check:
    return Check(name, True, "warn", detail, remedy)


def _fail(name: str, detail: str, remedy: str) -> Check:
    return Check(name, False, "fail", detail, remedy)


def check(connection: Connection, dsn: str | None = None) -> list[Check]:
    """All findings, in the order in which to mend them. ``dsn`` is used to look for pending migrations.

    ``connection`` must be in autocommit mode or outside a transaction.
    """
    target = dsn or connection.info.dsn
    findings: list[Callable[[], Check]] = [
        lambda: server_version(connection.info.server_version),
        lambda: extension(connection, "vector"),
        lambda: optional(extension(connection, "plpython3u")),
        lambda: optional(server_python(connection)),
        lambda: maintenance_memory(connection),
        lambda: scheduler(connection),
        lambda: migrations(connection, target),
        lambda: active_model(connection),
    ]
    return [finding() for finding in findings]


# ------------------------------------------------------------------------------------------------ findings


def server_version(number: int) -> Check:
    """``number`` as in ``server_version_num``."""
    major, minor = divmod(number, 10000)
    if major < OLDEST:
        return _fail("PostgreSQL", f"{major}.{minor}", f"move to PostgreSQL {OLDEST} to {NEWEST} (pg_upgrade)")
    if major > NEWEST:
        return _warn("PostgreSQL", f"{major}.{minor}", f"not tested; PostgreSQL {OLDEST} to {NEWEST} are")
    return _well("PostgreSQL", f"{major}.{minor}")


def extension(connection: Connection, name: str) -> Check:
    """Whether an extension is installed, or installable by this role, and new enough."""
    title = f"extension {name}"
    row = connection.execute(
        "select default_version, installed_version from pg_available_extensions where name = %s", (name,)
    ).fetchone()
    major = connection.info.server_version // 10000
    if row is None:
        package = EXTENSIONS.get(name, name).format(major)
        return _fail(
            title,
            "not installed on the server",
            f"on the server's machine: apt-get install {package} (`make setup` does it for the embedded server)",
        )
    offered, installed = row
    version = installed or offered
    if name == "vector" and _numbers(version) < VECTOR_NEEDED:
        newer = _numbers(offered) >= VECTOR_NEEDED
        return _fail(
            title,
            f"{version}, without iterative index scans",
            "alter extension vector update" if newer else "install pgvector 0.8.4 or newer on the server",
        )
    if installed is None and (refusal := _cannot_create(connection, name)):
        return _fail(
            title,
            f"{offered} is there, but {refusal}",
            f"once, as a superuser, in database {connection.info.dbname}: create extension {name}",
        )
    if name == "vector" and _numbers(version) < VECTOR_WANTED:
        newer = _numbers(offered) >= VECTOR_WANTED
        return _warn(
            title,
            f"{version}; before 0.8.4 a vacuum could damage HNSW indexes",
            "alter extension vector update" if newer else "install pgvector 0.8.4 or newer on the server",
        )
    return _well(title, f"{version}{'' if installed else ', `two-tower migrate` creates it'}")


def optional(found: Check) -> Check:
    """A requirement only of the engine onnxruntime; without it, vectors are computed in SQL, so it is no fault."""
    if found.ok:
        return found
    return _warn(found.name, f"{found.detail}; the engine is sql, which needs neither", f"to have it: {found.remedy}")


def server_python(connection: Connection) -> Check:
    """Whether a backend can import numpy and onnxruntime: a shell does not show which Python the server runs."""
    title = "onnxruntime in the server"
    probe = """
        do $plpython$
        import importlib, json, os, sys
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        found = {"python": "%d.%d" % sys.version_info[:2]}
        for name in ("numpy", "onnxruntime"):
            try:
                found[name] = importlib.import_module(name).__version__
            except Exception as error:
                found["error"] = "%s: %s" % (type(error).__name__, error)
                break
        plan = plpy.prepare("select pg_catalog.set_config('two_tower.doctor', $1, true)", ["text"])
        plpy.execute(plan, [json.dumps(found)])
        $plpython$ language plpython3u
    """
    try:
        with _rolled_back(connection):
            if not connection.execute("select 1 from pg_language where lanname = 'plpython3u'").fetchone():
                connection.execute("create extension plpython3u")
            connection.execute(probe)
            found: dict[str, str] = json.loads(one(connection, "select current_setting('two_tower.doctor')"))
    except psycopg.Error as error:
        return _fail(
            title,
            f"cannot be tried: {_first_line(error)}",
            "mend extension plpython3u first; only a superuser can create and use untrusted languages",
        )
    if "error" in found:
        python = found["python"]
        return _fail(
            title,
            f"Python {python}: {found['error']}",
            f"on the server's machine: python3 -m pip install --target /opt/two-tower/python{python}"
            f" --python-version {python} --only-binary=:all: numpy onnxruntime"
            f" — then set PYTHONPATH=/opt/two-tower/python{python} in the environment of the server process"
            " (Debian: /etc/postgresql/<version>/<cluster>/environment) and restart it",
        )
    return _well(title, f"onnxruntime {found['onnxruntime']}, numpy {found['numpy']}, Python {found['python']}")


def maintenance_memory(connection: Connection) -> Check:
    """Whether ``maintenance_work_mem`` is large enough: an HNSW build that exceeds it continues slowly, on disk."""
    found = one(connection, "select setting::bigint / 1024 from pg_settings where name = 'maintenance_work_mem'")
    if found < MAINTENANCE_WANTED_MB:
        return _warn(
            "maintenance_work_mem",
            f"{found} MB; HNSW indexes of more than about {found * 1000:,} rows will build slowly",
            "alter system set maintenance_work_mem = '512MB'; select pg_reload_conf()",
        )
    return _well("maintenance_work_mem", f"{found} MB")


def scheduler(connection: Connection) -> Check:
    """pg_cron is optional: without it, something else must call ``two-tower refresh``."""
    major = connection.info.server_version // 10000
    # From pg_settings, since the list of preloaded libraries is hidden from ordinary roles.
    row = connection.execute("select setting from pg_settings where name = 'cron.database_name'").fetchone()
    home = row[0] if row else None
    if home is None:
        available = connection.execute("select 1 from pg_available_extensions where name = 'pg_cron'").fetchone()
        first = "" if available else f"apt-get install postgresql-{major}-cron; then "
        return _warn(
            "pg_cron",
            "not loaded; embeddings stay fresh only while `two-tower refresh --every 60` runs as a service",
            f"{first}shared_preload_libraries = 'pg_cron' and cron.database_name = '{connection.info.dbname}'"
            " in postgresql.conf, and restart the server",
        )
    if home != connection.info.dbname:
        return _warn(
            "pg_cron",
            f"works in database {home}, not in {connection.info.dbname}",
            f"alter system set cron.database_name = '{connection.info.dbname}' and restart the server",
        )
    installed = connection.execute(
        "select default_version, installed_version from pg_available_extensions where name = 'pg_cron'"
    ).fetchone()
    if installed and installed[1] is None:
        return _well("pg_cron", f"{installed[0]} is loaded, `two-tower migrate` creates it")
    return _well("pg_cron", f"{installed[1] if installed else ''}, database {home}")


def migrations(connection: Connection, dsn: str) -> Check:
    """Whether all migrations of this checkout are applied."""
    if not connection.execute("select 1 from pg_namespace where nspname = 'two_tower'").fetchone():
        return _fail("migrations", f"none in database {connection.info.dbname}", "two-tower migrate")
    try:
        from two_tower.server.migrate import pending

        missing = pending(dsn)
        if not missing:
            require_migrated(connection)
    except UserError as error:
        return _fail("migrations", error.message, error.hint or "two-tower migrate")
    except psycopg.Error as error:
        return _fail(
            "migrations", f"cannot be told: {_first_line(error)}", "connect as the owner, or two-tower migrate"
        )
    if missing:
        return _fail("migrations", f"pending: {', '.join(missing)}", "two-tower migrate")
    return _well("migrations", "all applied")


def active_model(connection: Connection) -> Check:
    """For information: without a model, recommendations are popular videos."""
    none = _well("active model", "none; recommendations are by popularity until `two-tower model activate`", "info")
    try:
        with _rolled_back(connection):
            row = connection.execute("select two_tower.active_version()").fetchone()
    except psycopg.Error:
        return none
    return _well("active model", str(row[0]), "info") if row and row[0] else none


# ------------------------------------------------------------------------------------------------ helpers


@contextmanager
def _rolled_back(connection: Connection) -> Iterator[None]:
    """A transaction, or a savepoint within one, that leaves no trace."""
    with connection.transaction(force_rollback=True):
        yield


def _cannot_create(connection: Connection, name: str) -> str | None:
    """Why this role may not create an extension, by trying; None if it may."""
    try:
        with _rolled_back(connection):
            connection.execute(sql.SQL("create extension {} cascade").format(sql.Identifier(name)))
    except psycopg.Error as error:
        return f"role {connection.info.user} cannot create it ({_first_line(error)})"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
