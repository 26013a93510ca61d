"""Facts about the application's objects, and ours, from PostgreSQL's catalogues."""

from __future__ import annotations

from typing import Any

import psycopg

from two_tower.rows import column, one
from two_tower.server.contract import ROUTINES

Connection = psycopg.Connection[Any]


def relation(connection: Connection, table: str) -> tuple[str, str, bool, bool] | None:
    """Kind, owner, whether we have the owner's rights, whether policies are forced; None if there is no such table."""
    row = connection.execute(
        """select c.relkind::text, quote_ident(pg_get_userbyid(c.relowner)), pg_has_role(c.relowner, 'usage'),
            c.relforcerowsecurity
        from pg_class c
        where c.relnamespace = 'public'::regnamespace and c.relname = %s
            and c.relkind in ('r', 'p', 'v', 'm', 'f')""",
        (table,),
    ).fetchone()
    return row and (row[0], row[1], row[2], row[3])


def column_types(connection: Connection, table: str) -> dict[str, tuple[str, str, bool]]:
    """By column: its type as shown, its base type (``enum`` for any), and whether it is never null."""
    rows = connection.execute(
        """with recursive typed as (
            select a.attname, format_type(a.atttypid, a.atttypmod) as shown, a.attnotnull,
                t.oid, t.typtype, t.typbasetype, t.typname
            from pg_attribute a join pg_type t on t.oid = a.atttypid
            where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped
            union all
            select d.attname, d.shown, d.attnotnull, t.oid, t.typtype, t.typbasetype, t.typname
            from typed d join pg_type t on t.oid = d.typbasetype where d.typtype = 'd'
        )
        -- An ordinary role cannot create a base type, but it can name another type like one.
        select attname, shown,
            case typtype when 'e' then 'enum' when 'b' then typname::text else 'another' end, attnotnull
        from typed where typtype <> 'd'""",
        (f"public.{table}",),
    ).fetchall()
    return {name: (shown, base, never_null) for name, shown, base, never_null in rows}


def recorded(connection: Connection, kind: str) -> set[str]:
    if one(connection, "select to_regclass('two_tower.created_objects') is null"):
        return set()
    return set(column(connection, "select name from two_tower.created_objects where kind = %s", (kind,)))


def taken_signatures(connection: Connection) -> list[str]:
    """Qualified signatures of ours that routines of the application have."""
    ours = recorded(connection, "routine")
    return [
        name
        for name in (f"public.{signature}" for signature in ROUTINES)
        if name not in ours and one(connection, "select to_regprocedure(%s) is not null", (name,))
    ]


def is_foreign(connection: Connection, name: str) -> bool:
    """Whether the application has a relation of this name in ``public``."""
    ours = recorded(connection, "table") | recorded(connection, "view")
    return f"public.{name}" not in ours and one(connection, "select to_regclass(%s) is not null", (f"public.{name}",))


def quoted(connection: Connection, role: str) -> str:
    return str(one(connection, "select quote_ident(%s)", (role,)))
