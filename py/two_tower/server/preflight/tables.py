"""Problems with the application's tables."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from two_tower.rows import one, row
from two_tower.server.contract import COLUMNS, INDEXES, KEYS, NUMBER, TEXT, TIME, TRIGGERED, UUID
from two_tower.server.preflight.catalogue import Connection, column_types, relation
from two_tower.server.preflight.names import taken_names
from two_tower.server.preflight.problem import Problem
from two_tower.server.preflight.server import as_member

_KINDS = {"p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}

_ADDED = {UUID: "uuid", TEXT: "text", NUMBER: "numeric", TIME: "timestamptz"}


def tables(connection: Connection) -> Iterator[Problem]:
    for table, columns in COLUMNS.items():
        found = relation(connection, table)
        if found is None:
            yield from _absent(connection, table)
            continue
        kind, owner, mine, forced = found
        name = f"public.{table}"
        # Row triggers of a partitioned table apply to its partitions, including those that are attached later.
        if kind != "r" and not (kind == "p" and table in TRIGGERED):
            yield Problem(
                f"{name} is a {_KINDS.get(kind, 'relation')}, "
                "and writes into what is below or behind it fire no trigger of its own",
                f"give the application's rows to an ordinary table {name}",
            )
            continue
        if one(connection, "select relpersistence = 'u' from pg_class where oid = %s::regclass", (name,)):
            yield Problem(
                f"{name} is unlogged: a crash empties it, and permanent tables cannot refer to it",
                f"run: alter table {name} set logged",
            )
        if one(
            connection,
            """select exists (
                select from pg_inherits i join pg_class c on c.oid = %s::regclass
                where i.inhrelid = c.oid or i.inhparent = c.oid and c.relkind <> 'p'
            )""",
            (name,),
        ):
            yield Problem(
                f"{name} is part of an inheritance tree, and writes into children fire no trigger of the parent",
                f"give the application's rows to one ordinary table {name}",
            )
        if not mine:
            role = one(connection, "select quote_ident(current_user)")
            yield Problem(
                f"{name} belongs to {owner}, and the role {role} is no member of that: triggers take the table's owner",
                as_member(connection, owner),
            )
        if forced and not one(connection, "select rolsuper or rolbypassrls from pg_roles where rolname = current_user"):
            yield Problem(
                f"{name} has row level security that is forced on its owner too, so refreshes would not see all rows",
                f"run: alter table {name} no force row level security",
            )
        types = column_types(connection, table)
        for column, wanted in columns.items():
            if column not in types:
                yield Problem(
                    f"{name}.{column} is missing ({wanted})",
                    f"run: alter table {name} add column {column} {_ADDED[wanted]}",
                )
            elif not _fits(wanted, *types[column]):
                yield Problem(
                    f"{name}.{column} is of type {types[column][0]}, and must be {wanted}",
                    f"run: alter table {name} alter column {column} type {_ADDED[wanted]} using …",
                )
        yield from _key(connection, name, KEYS[table], types)


def _absent(connection: Connection, table: str) -> Iterator[Problem]:
    """A table to be created needs free names; one that existed and is gone is not created again."""
    if one(connection, "select to_regprocedure('two_tower.refresh(int, interval)') is not null"):
        yield Problem(
            f"public.{table} is gone, which routines of ours read",
            "give it its name back, or go back with `two-tower migrate --to 0` and migrate again",
        )
        return
    yield from taken_names(connection, table, *INDEXES.get(table, ()))


def _key(
    connection: Connection, name: str, key: tuple[str, ...], types: dict[str, tuple[str, str, bool]]
) -> Iterator[Problem]:
    if not set(key) <= types.keys():
        return
    if not one(
        connection,
        """select exists (
            select from pg_index i
            where i.indrelid = %s::regclass and i.indisunique and i.indisvalid and i.indimmediate
                and i.indpred is null and i.indexprs is null
                and (
                    select array_agg(a.attname::text order by a.attname)
                    from pg_attribute a
                    where a.attrelid = i.indrelid and a.attnum = any ((i.indkey::int2[])[0 : i.indnkeyatts - 1])
                ) = (select array_agg(k order by k) from unnest(%s::text[]) as k)
        )""",
        (name, list(key)),
    ):
        yield Problem(
            f"{name} has no unique key on ({', '.join(key)}), so a row could count twice",
            f"run: alter table {name} add unique ({', '.join(key)})",
        )
    for column in key:
        if not types[column][2]:
            yield Problem(f"{name}.{column} may be null", f"run: alter table {name} alter column {column} set not null")


def _fits(wanted: str, shown: str, base: str, _: bool) -> bool:
    """Whether a column's type fits. Columns other than ids may have any type that ``sql/04_values`` converts."""
    if wanted == UUID:
        return base == "uuid"
    if wanted == NUMBER:
        return base in {"int2", "int4", "int8", "numeric", "float4", "float8", "money", "text", "varchar", "bpchar"}
    if wanted == TIME:
        return base in {"timestamptz", "timestamp", "date", "text", "varchar", "bpchar"}
    return base in {"text", "varchar", "bpchar", "citext", "name", "enum"}


def profiles(connection: Connection) -> Iterator[Problem]:
    found = relation(connection, "profiles")
    if found is None:
        yield from _absent(connection, "profiles")
        return
    if found[0] not in "rpv":
        yield Problem("public.profiles is not a table", "rename it")
        return
    types = column_types(connection, "profiles")
    if not any(name in types and types[name][1] == "uuid" for name in ("user_id", "id")):
        yield Problem(
            "public.profiles has neither a user_id nor an id of type uuid",
            "run: alter table public.profiles add column user_id uuid references auth.users (id)",
        )


def catalogue_rule(connection: Connection) -> Iterator[Problem]:
    """The owner's condition on which videos may be shown, from which a view is created, must fit the present table."""
    if one(
        connection,
        "select to_regclass('two_tower.catalogue_rule') is null or to_regclass('public.videos') is null",
    ):
        return
    said, condition = row(connection, "select stated, visible_when from two_tower.catalogue_rule")
    if not said:
        return
    try:
        with connection.transaction():
            # Only parsed, as one statement: planning could call the condition's functions as the role that migrates.
            query = f"select v.id from public.videos v where ({condition})"  # noqa: S608
            result = connection.pgconn.prepare(b"", query.encode())
            if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
                raise psycopg.errors.error_from_result(result)
    except psycopg.Error as error:
        yield Problem(
            f"videos cannot be shown by the condition {condition!r}: {error.diag.message_primary}",
            "set it again: select two_tower.set_visible_when('…')",
        )
