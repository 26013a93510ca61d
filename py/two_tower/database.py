"""Finding the database, and connecting to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from two_tower.errors import UserError

if TYPE_CHECKING:
    import psycopg

_PACKAGE = Path(__file__).parent
DATABASE_FILES = _PACKAGE / "_database" if (_PACKAGE / "_database").is_dir() else _PACKAGE.parents[1]
"""Holds ``migrations``, ``sql`` and ``plpython``: inside an installed wheel, or the root of the repository."""


def resolve_dsn(dsn: str | None = None) -> str:
    """``dsn`` as given, else ``DATABASE_URL``, else the embedded server's. Raises UserError if there is none."""
    from two_tower.server import Server
    from two_tower.settings import Settings

    found = dsn or Settings().database_url
    if found:
        return found
    server = Server(Path.cwd())
    if not server.running:
        raise UserError(
            f"no database: neither --dsn nor DATABASE_URL is given, and no embedded server runs in {Path.cwd()}",
            "start one with `two-tower up`",
        )
    return server.dsn


def connect(
    dsn: str | None = None, *, autocommit: bool = False, application_name: str = "two-tower"
) -> psycopg.Connection[Any]:
    """A psycopg connection to ``resolve_dsn(dsn)``."""
    import psycopg

    return psycopg.connect(
        resolve_dsn(dsn), autocommit=autocommit, application_name=application_name, connect_timeout=15
    )


def another(connection: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """One more connection to the same database, in autocommit mode."""
    import psycopg
    from psycopg.conninfo import make_conninfo

    parameters = dict(connection.info.get_parameters())
    if connection.info.password:
        parameters["password"] = connection.info.password
    return psycopg.connect(make_conninfo("", **parameters), autocommit=True)
