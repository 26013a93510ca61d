"""Requirements of ``two-tower migrate`` on a database, checked before anything is written.

All reasons to refuse are in one list, each with its remedy, so that nobody mends one only to meet the next. Nothing
here changes anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from two_tower.errors import UserError
from two_tower.rows import column, one
from two_tower.server.contract import READ
from two_tower.server.preflight import changes, names, server, tables
from two_tower.server.preflight.catalogue import Connection
from two_tower.server.preflight.names import put_aside
from two_tower.server.preflight.problem import Problem
from two_tower.server.preflight.server import owner, python_usable

__all__ = ["Problem", "Report", "look", "owner", "put_aside", "python_usable", "reaches", "require", "require_reach"]


@dataclass(frozen=True)
class Report:
    """``problems`` prevent ``migrate``; ``changes`` are what it would change in the database."""

    problems: list[Problem]
    changes: list[str]
    notes: list[str]


def require(connection: Connection) -> Report:
    """The report of a database without problems. Raises UserError with all of them otherwise."""
    require_reach(connection)
    _hold(connection)
    report = look(connection)
    _refuse(report.problems)
    return report


def require_reach(connection: Connection) -> None:
    """Raises UserError with everything that prevents this session from checking further, or from writing at all."""
    _refuse(list(server.reach(connection)))


def reaches(connection: Connection) -> bool:
    """Whether :func:`look` could check everything."""
    return not any(server.reach(connection))


def _refuse(problems: list[Problem]) -> None:
    if problems:
        count = len(problems)
        raise UserError(
            f"this database cannot be migrated, for {count} reason{'s' if count > 1 else ''}; nothing was changed\n"
            + "\n".join(f"- {problem}" for problem in problems),
            "mend these, then migrate again; `two-tower migrate --check` lists what is left",
        )


def _hold(connection: Connection) -> None:
    """Locks the tables to be checked, so that nobody replaces them before the transaction ends."""
    for table in column(
        connection,
        """select quote_ident(relname) from pg_class
        where relnamespace = 'public'::regnamespace and relname = any (%s) and relkind in ('r', 'p')
            -- A table that this role may not read is a reason to refuse anyway.
            and has_table_privilege(oid, 'select')
        order by 1""",
        (list(READ),),
    ):
        connection.execute(f"lock table public.{table} in access share mode")  # quoted by the server


def look(connection: Connection) -> Report:
    """All problems and all changes for the connected role.

    The transaction's setting ``two_tower.take_names`` says whether names in ``public`` are taken.
    """
    take_names = one(connection, "select coalesce(current_setting('two_tower.take_names', true), '') = 'on'")
    if blocked := list(server.reach(connection)):
        note = "this prevented further checks: run `two-tower migrate --check` again once it is mended"
        return Report([*server.server(connection), *blocked], [], [note])
    problems = [
        *server.server(connection),
        *server.rights(connection),
        *server.ownership(connection),
        *server.extensions(connection),
        *names.schemas(connection),
        *tables.tables(connection),
        *tables.profiles(connection),
        *tables.catalogue_rule(connection),
        *names.triggers(connection),
        *names.routines(connection, take_names),
        *names.relations(connection, take_names),
    ]
    planned = [] if problems else list(changes.changes(connection, take_names))
    return Report(problems, planned, list(changes.notes(connection)))
