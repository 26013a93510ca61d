"""Finding the database to use, and connecting to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from two_tower.database import open_connection, require_migrated, require_writable
from two_tower.errors import UserError
from two_tower.server.embedded import Server
from two_tower.settings import Settings
from two_tower.supabase import remote_database

if TYPE_CHECKING:
    import psycopg


class NoDatabase(UserError):  # noqa: N818 - nothing failed
    """No database is given."""


def resolve_dsn(dsn: str | None = None, settings: Settings | None = None) -> str:
    """``dsn`` as given, else ``DATABASE_URL``, else the embedded server's. Raises NoDatabase if there is none."""
    found = dsn or (settings or Settings()).database_url
    if found:
        return found
    server = Server(Path.cwd())
    if not server.running:
        raise NoDatabase(
            f"no database: neither --dsn nor DATABASE_URL is given, and no embedded server runs in {Path.cwd()}",
            "start one with `two-tower up`",
        )
    return server.dsn


def near_or_remote() -> str | None:
    """``DATABASE_URL``, else the far database that the environment names (:mod:`two_tower.supabase`); None without."""
    settings = Settings()
    return settings.database_url or remote_database(settings)


def connect(
    dsn: str | None = None,
    *,
    autocommit: bool = False,
    application_name: str = "two-tower",
    migrated: bool = True,
    as_owner: bool = True,
    writes: bool = False,
) -> psycopg.Connection[Any]:
    """A connection to ``resolve_dsn(dsn)`` as :func:`open_connection` makes it.

    Raises UserError where the database is not :func:`migrated <require_migrated>`, unless that is not asked for; and
    for whoever ``writes``, where nothing can be written, before any work is done.
    """
    connection = open_connection(
        resolve_dsn(dsn), autocommit=autocommit, as_owner=as_owner, application_name=application_name
    )
    try:
        if writes:
            require_writable(connection)
        if migrated:
            require_migrated(connection)
    except BaseException:
        connection.close()
        raise
    return connection
