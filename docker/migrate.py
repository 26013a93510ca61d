"""What the service ``migrate`` does before anything else may talk to the database. Doing it again changes nothing.

Takes DATABASE_URL, a superuser's; AUTHENTICATOR_PASSWORD, for PostgREST; PAGE_PASSWORD, for ``two-tower ui``.
"""

from __future__ import annotations

import os
from typing import Any

import psycopg
from psycopg import sql

from two_tower.server.connection import connect
from two_tower.server.migrate import migrate


def login(connection: psycopg.Connection[Any], role: str, password: str) -> None:
    """Make the role if it is missing, and let it in with this password."""
    name = sql.Identifier(role)
    if not connection.execute("select 1 from pg_roles where rolname = %s", (role,)).fetchone():
        connection.execute(sql.SQL("create role {}").format(name))
    # Hashed here, so that the password never reaches the server or its log.
    hashed = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    connection.execute(sql.SQL("alter role {} login password {}").format(name, sql.Literal(hashed)))


migrate()
with connect(autocommit=True, application_name="two-tower migrate") as connection:
    login(connection, "authenticator", os.environ["AUTHENTICATOR_PASSWORD"])
    login(connection, "two_tower_page", os.environ["PAGE_PASSWORD"])
    connection.execute("grant two_tower_viewer to two_tower_page")
    connection.execute("select two_tower.schedule_jobs()")
    connection.execute("notify pgrst, 'reload schema'")
