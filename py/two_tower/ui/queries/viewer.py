"""The role as which the page reads, and its queries' answers as plain rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from textwrap import dedent
from typing import Any, LiteralString

import psycopg
from psycopg.rows import DictRow, dict_row

from two_tower.database import open_connection, require_migrated
from two_tower.errors import UserError

Connection = psycopg.Connection[DictRow]

Row = dict[str, Any]

ROLE = "two_tower_viewer"


class Viewers(ExitStack):
    """Connections that questions share until this is left: one to each database, opened when it is first asked. Each
    was found to be of a migrated database."""

    def __init__(self) -> None:
        super().__init__()
        self._opened: dict[str, Connection] = {}

    @contextmanager
    def viewer(self, dsn: str) -> Iterator[Connection]:
        """A transaction as :func:`viewer` gives it. One that broke off is followed by one on a new connection."""
        connection = self._opened.get(dsn)
        if connection is None or connection.closed:
            connection = self._opened[dsn] = self.enter_context(_opened(dsn))
        with _looking(connection):
            yield connection


@contextmanager
def viewer(dsn: str) -> Iterator[Connection]:
    """A read-only transaction as the viewer's role, or as the login if policies restrict that role. Its settings end
    with it, since behind a pooler the next client gets its session.

    Raises UserError if the database is not migrated or the login may not switch to the role, psycopg.OperationalError
    if there is no connection.
    """
    with Viewers() as viewers, viewers.viewer(dsn) as connection:
        yield connection


@contextmanager
def _opened(dsn: str) -> Iterator[Connection]:
    with open_connection(
        dsn, autocommit=True, row_factory=dict_row, application_name="two-tower ui", connect_timeout=10
    ) as connection:
        if one(connection, "select pg_catalog.to_regrole(%s) is null", ROLE):
            raise UserError(f"database {connection.info.dbname} is not migrated", "two-tower migrate")
        require_migrated(connection, ROLE)
        yield connection


@contextmanager
def _looking(connection: Connection) -> Iterator[None]:
    with connection.transaction():
        try:
            # If the role that migrated could not let the viewer's role see all rows, the login reads itself.
            connection.execute(
                """select pg_catalog.set_config('transaction_read_only', 'on', true),
                    pg_catalog.set_config('statement_timeout', '30s', true),
                    (
                        select pg_catalog.set_config('role', rolname, true) from pg_catalog.pg_roles
                        where rolname = %s and rolbypassrls
                    )""",
                (ROLE,),
            )
        except psycopg.errors.InsufficientPrivilege as error:
            login = connection.info.user
            hint = f'As an administrator of the database run: grant {ROLE} to "{login}";'
            raise UserError(f"{login} may not switch to the role {ROLE}, as which this page reads", hint) from error
        yield


_statements: ContextVar[list[str] | None] = ContextVar("statements", default=None)


@contextmanager
def written_down() -> Iterator[list[str]]:
    """The statements of :func:`rows`, :func:`row` and :func:`one` meanwhile, with their values, to copy into psql."""
    statements: list[str] = []
    token = _statements.set(statements)
    try:
        yield statements
    finally:
        _statements.reset(token)


def write_down(statement: str) -> None:
    """Adds a statement that runs elsewhere to :func:`written_down`."""
    statements = _statements.get()
    if statements is not None:
        statements.append(statement)


def _abridged(statement: str) -> str:
    """The statement without lists of more than fifty ids, which come from an answer above."""
    short, lists = re.subn(r"'\{[^']{2000,}\}'", "'{...}'", statement)
    return f"-- {{...}} stands for what the statements above it on the page found.\n{short}" if lists else statement


def _ask(connection: Connection, query: LiteralString, values: Any) -> psycopg.Cursor[DictRow]:
    if _statements.get() is not None:
        text = psycopg.ClientCursor(connection).mogrify(query, values)
        # The first line has no indentation; the others have that of the surrounding Python code.
        first, _, others = text.partition("\n")
        write_down(_abridged(f"{first}\n{dedent(others)}".strip() + ";"))
    return connection.execute(query, values)


def rows(connection: Connection, query: LiteralString, *values: Any, **named: Any) -> list[Row]:
    """Every row."""
    return _ask(connection, query, named or values or None).fetchall()


def row(connection: Connection, query: LiteralString, *values: Any, **named: Any) -> Row:
    """The only row."""
    found = _ask(connection, query, named or values or None).fetchone()
    assert found is not None
    return found


def one(connection: Connection, query: LiteralString, *values: Any) -> Any:
    """The only column of the only row."""
    return next(iter(row(connection, query, *values).values()))
