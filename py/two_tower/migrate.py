"""State by yoyo migrations, each with its way back; logic re-applied as a whole.

``migrations/`` holds what runs once. ``sql/`` holds routines, views, triggers, policies and privileges, applied in the
order of their paths, in one transaction, every time. ``-- include FILE`` inside a PL/Python body stands for the text of
that file, so that what is deployed, and dumped, needs no file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
import yoyo
from psycopg.conninfo import conninfo_to_dict

from two_tower.database import DATABASE_FILES, open_connection, resolve_dsn
from two_tower.errors import UserError

MIGRATIONS = DATABASE_FILES / "migrations"
LOGIC = DATABASE_FILES / "sql"
TEARDOWN = LOGIC / "teardown.sql"

_LOCK = 7207_0001  # advisory lock of one migration at a time
_INCLUDE = re.compile(r"^-- include (\S+)$", re.MULTILINE)


def migrate(dsn: str | None = None, to: str | None = None) -> dict[str, list[str]]:
    """Applies pending migrations and then all of ``sql/``; with ``to``, goes forward or back to that migration.

    ``to`` is a migration's id or its number; ``"0"`` goes back to nothing. Going back drops the logic; the checkout
    whose newest migration that is applies its own. Returns the ids ``applied`` and ``rolled_back``. Twenty at once are
    fine: they take turns by an advisory lock, and the later ones find nothing to do.
    """
    target = resolve_dsn(dsn)
    with _turn(target) as connection:
        backend = yoyo.get_backend(_yoyo_uri(target))
        try:
            known = yoyo.read_migrations(str(MIGRATIONS))
            wanted = _wanted(sorted(m.id for m in known), to)
            # Without yoyo's own lock, which a killed run would leave behind; the advisory lock goes with its session.
            pending = [m for m in backend.to_apply(known) if m.id in wanted]
            surplus = [m for m in backend.to_rollback(known) if m.id not in wanted]
            if surplus:
                connection.execute(TEARDOWN.read_text())
            for migration in surplus:
                backend.rollback_one(migration)
            for migration in pending:
                backend.apply_one(migration)
            if len(wanted) == len(known):
                with connection.transaction():
                    apply_logic(connection)
        finally:
            backend.connection.close()
    return {"applied": [m.id for m in pending], "rolled_back": [m.id for m in surplus]}


def pending(dsn: str | None = None) -> list[str]:
    """Ids of migrations that ``migrate`` would apply. Changes nothing."""
    with open_connection(resolve_dsn(dsn), autocommit=True) as connection:
        row = connection.execute("select to_regclass('public._yoyo_migration')").fetchone()
        done: set[str] = set()
        if row and row[0]:
            done = {name for (name,) in connection.execute("select migration_id from public._yoyo_migration")}
    return [m.id for m in yoyo.read_migrations(str(MIGRATIONS)) if m.id not in done]


def apply_logic(connection: psycopg.Connection[Any]) -> None:
    """Runs every file of ``sql/`` but the teardown, inside the caller's transaction."""
    # Routines refer to each other in any order; tests check every body with plpgsql_check.
    connection.execute("set local check_function_bodies = off")
    connection.execute("set local client_min_messages = warning")
    for path in logic_files():
        try:
            # Bytes, not a template: nothing in these files is a parameter.
            connection.execute(expand(path).encode())
        except psycopg.Error as error:
            error.add_note(f"while applying {path.relative_to(DATABASE_FILES)}")
            raise


def logic_files() -> list[Path]:
    """The files of ``sql/`` in the order in which they apply."""
    return sorted(path for path in LOGIC.rglob("*.sql") if path != TEARDOWN)


def expand(path: Path) -> str:
    """Text of an SQL file with its includes in place."""
    return _INCLUDE.sub(lambda match: (DATABASE_FILES / match[1]).read_text().strip("\n"), path.read_text())


def checksum(path: Path) -> str:
    """sha256 of a migration file, as ``migrations/frozen.txt`` has it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _wanted(known: list[str], to: str | None) -> set[str]:
    if to is None:
        return set(known)
    if to == "0":
        return set()
    matches = [name for name in known if name == to or name.split(".")[0] == to]
    if len(matches) != 1:
        raise UserError(f"there is no migration {to!r}", f"choose one of: 0, {', '.join(known)}")
    return set(known[: known.index(matches[0]) + 1])


@contextmanager
def _turn(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with open_connection(dsn, autocommit=True, application_name="two-tower migrate") as connection:
        connection.execute("select pg_advisory_lock(%s)", (_LOCK,))
        yield connection


def _yoyo_uri(dsn: str) -> str:
    # libpq takes every part as a parameter, whichever form the connection string had.
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value is not None}
    settings = {"search_path": "public", "default_transaction_read_only": "off"}
    settings |= {f"{name}_timeout": "0" for name in ("statement", "lock", "idle_in_transaction_session")}
    parts["options"] = " ".join([parts.get("options", ""), *(f"-c {name}={value}" for name, value in settings.items())])
    return f"postgresql+psycopg://?{urlencode(parts)}"
