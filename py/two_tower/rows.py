"""Results of queries with one row or one column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg
    from psycopg.abc import Params, QueryNoTemplate


def row(connection: psycopg.Connection[Any], query: QueryNoTemplate, values: Params | None = None) -> tuple[Any, ...]:
    """The only row. Raises LookupError if there is none."""
    from psycopg.rows import tuple_row

    found = connection.cursor(row_factory=tuple_row).execute(query, values).fetchone()
    if found is None:
        raise LookupError(f"no row answers: {query!r}")
    return found


def one(connection: psycopg.Connection[Any], query: QueryNoTemplate, values: Params | None = None) -> Any:
    """The only column of the only row. Raises LookupError if there is no row."""
    return row(connection, query, values)[0]


def column(connection: psycopg.Connection[Any], query: QueryNoTemplate, values: Params | None = None) -> list[Any]:
    """The first column of every row."""
    from psycopg.rows import tuple_row

    return [first for first, *_ in connection.cursor(row_factory=tuple_row).execute(query, values)]
