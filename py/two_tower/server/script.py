"""Everything that ``migrate`` does to an empty database, or to one with an application's tables, as one file of SQL.

For databases that are reached only by a console, or by another tool's migrations. The file is one transaction, with the
same result as ``migrate`` as an ordinary role, so ``migrate`` can continue from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import Any

import yoyo
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.internalmigrations import schema_versions, v2
from yoyo.migrations import default_migration_table

from two_tower.server import contract, migrate


def script() -> str:
    """The text of the file. It opens no connection, and names no role and no address."""
    return "\n\n".join(text.strip() for text in _parts()) + "\n"


def _parts() -> Iterator[str]:
    yield f"""-- pg-two-tower {metadata.version("pg-two-tower")}, written by `two-tower migrate --sql`.
-- Run it once and as a whole, since it is one transaction, as the role that owns the application's tables.
-- Vectors are computed in SQL (engine sql); what needs a superuser is left out."""
    yield "begin;"
    yield f"""set local search_path = pg_catalog, pg_temp;
set local lock_timeout = '2s';
do $lock$ begin perform pg_advisory_xact_lock({migrate.LOCK}); end $lock$;"""
    yield _guard()
    yield migrate.REMEMBER
    yield "create schema two_tower;\nset local search_path = two_tower;"
    yield ";\n".join(_yoyo()) + ";"
    known = sorted(yoyo.read_migrations(str(migrate.MIGRATIONS)), key=lambda migration: str(migration.id))
    for migration in known:
        if migration.path.endswith(".sql"):
            yield f"-- {'-' * 40} {migration.id}\n{(migrate.MIGRATIONS / (migration.id + '.sql')).read_text()}"
    yield _marks([(str(migration.id), str(migration.hash)) for migration in known])
    for name, text in migrate.logic():
        yield f"-- {'-' * 40} {name}\n{text}"
    yield migrate.RELOAD
    yield "commit;"


class _Written(PostgresqlPsycopgBackend):  # type: ignore[misc]  # yoyo has no types
    """yoyo without a database: it collects the statements."""

    def __init__(self) -> None:
        self.migration_table = default_migration_table
        self.statements: list[str] = []

    def execute(self, sql: str, params: Any = None) -> None:
        self.statements.append("\n".join(line.removeprefix("        ") for line in sql.strip().splitlines()))


def _yoyo() -> list[str]:
    """Statements that create yoyo's own tables, except the lock, which it creates when it needs it."""
    written = _Written()
    v2.create_log_table(written)
    v2.create_version_table(written)
    v2.create_migration_table(written)
    written.execute(
        f"insert into {written.version_table} values ({max(schema_versions)}, now() at time zone 'UTC')"  # noqa: S608
    )
    for table in (written.log_table, written.version_table, written.migration_table):
        written.statements += migrate.closed(table)
    return written.statements


def _marks(known: list[tuple[str, str]]) -> str:
    written = _Written()
    rows = ",\n".join(f"    ('{name}', '{digest}')" for name, digest in known)
    return f"""with applied (migration_id, migration_hash) as (values
{rows}
),
logged as (
    insert into two_tower.{written.log_table}
        (id, migration_hash, migration_id, operation, username, comment, created_at_utc)
    select gen_random_uuid(), a.migration_hash, a.migration_id, 'apply', current_user, '', clock_timestamp() at time zone 'UTC'
    from applied a
)
insert into two_tower.{written.migration_table} (migration_hash, migration_id, applied_at_utc)
select a.migration_hash, a.migration_id, clock_timestamp() at time zone 'UTC' from applied a;"""  # noqa: S608, E501


def _guard() -> str:
    """A block that raises the first reason for which ``preflight`` would refuse the database."""
    ids = {
        table: [column for column, kind in columns.items() if kind == contract.UUID]
        for table, columns in contract.COLUMNS.items()
    }
    tables = ",\n".join(
        f"            ({_text(table)}, {_array(columns)}, {_array(ids[table])}, {_array(contract.KEYS[table])})"
        for table, columns in contract.COLUMNS.items()
    )
    signatures = _array(f"public.{signature}" for signature in contract.ROUTINES)
    return f"""do $guard$
declare
    v_role pg_roles := (select r from pg_roles r where r.rolname = current_user);
    v_vector text := (
        select coalesce(e.extversion, a.default_version) from pg_available_extensions a
        full join pg_extension e on e.extname = a.name where coalesce(a.name, e.extname) = 'vector'
    );
    v_schema text := (
        select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'vector'
    );
    v_missing text := (
        select string_agg(n.name, ', ') from unnest({_array(contract.ROLES)}) as n (name)
        where not exists (select from pg_roles r where r.rolname = n.name)
    );
    v_table text := (
        select format('public.%s %s', t.name, case
                when c.relkind <> 'r' or c.relispartition then 'is no ordinary table'
                when not pg_has_role(c.relowner, 'usage') then 'does not belong to ' || current_user
                when c.relforcerowsecurity and not v_role.rolbypassrls then 'has row level security that binds its owner'
                when t.columns <> has.columns then 'lacks ' || (
                    select string_agg(w.name, ', ') from unnest(t.columns) as w (name) where w.name <> all (has.columns)
                )
                when not t.ids <@ has.ids then 'must have ids of type uuid: ' || array_to_string(t.ids, ', ')
                else format('has no unique key on (%s)', array_to_string(t.key, ', '))
            end)
        from (values
{tables}
        ) as t (name, columns, ids, key)
        join pg_class c on c.relnamespace = 'public'::regnamespace and c.relname = t.name and c.relkind in ('r', 'p', 'v', 'm', 'f')
        cross join lateral (
            select array(
                    select w.name from unnest(t.columns) with ordinality as w (name, at)
                    where exists (
                        select from pg_attribute a where a.attrelid = c.oid and a.attname = w.name and not a.attisdropped
                    )
                    order by w.at
                ) as columns,
                array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.atttypid = 'uuid'::regtype) as ids
        ) as has
        where c.relkind <> 'r' or c.relispartition or not pg_has_role(c.relowner, 'usage')
            or (c.relforcerowsecurity and not v_role.rolbypassrls) or t.columns <> has.columns or not t.ids <@ has.ids
            or not exists (
                select from pg_index i
                where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
                    and (
                        select array_agg(a.attname::text order by a.attname) from pg_attribute a
                        where a.attrelid = c.oid and a.attnotnull and a.attnum = any ((i.indkey::int2[])[0 : i.indnkeyatts - 1])
                    ) = (select array_agg(k.name order by k.name) from unnest(t.key) as k (name))
            )
        order by t.name limit 1
    );
    v_routine text := (select s.name from unnest({signatures}) as s (name) where to_regprocedure(s.name) is not null limit 1);
    v_why text;
begin
    v_why := case
        when current_setting('server_version_num')::int / 10000 not between {contract.OLDEST} and {contract.NEWEST}
        then 'this runs on PostgreSQL {contract.OLDEST} to {contract.NEWEST}, and the server is ' || current_setting('server_version')
        when current_setting('server_encoding') <> 'UTF8' then 'the encoding of the database must be UTF8'
        when to_regcollation('pg_catalog."und-x-icu"') is null then 'the server must have been built with ICU'
        when to_regnamespace('two_tower') is not null
        then 'there is a schema two_tower already, and what is installed is brought up to date by `two-tower migrate`'
        when v_role.rolsuper then 'a superuser runs `two-tower migrate`, which gives what it makes to the owner of the tables'
        when not has_database_privilege(current_database(), 'create')
        then format('%I may not create schemas: grant create on database %I to %I', current_user, current_database(), current_user)
        when not has_schema_privilege('public', 'create')
        then format('%I may not create in schema public: grant create on schema public to %I', current_user, current_user)
        when v_missing is not null and not v_role.rolcreaterole
        then format('the roles %s are missing, and %I may not create roles', v_missing, current_user)
        when v_vector is null then 'the extension vector (pgvector) is not on this server'
        when string_to_array(regexp_replace(v_vector, '[^0-9.].*', ''), '.')::int[] < array[{", ".join(map(str, contract.VECTOR_NEEDED))}]
        then 'pgvector must be {".".join(map(str, contract.VECTOR_NEEDED))} or newer, and is ' || v_vector
        when v_schema <> 'extensions'
        then format('pgvector is in schema %s, and this file looks for it in extensions: use `two-tower migrate`', v_schema)
        when v_schema is null and not exists (
            select from pg_available_extension_versions e where e.name = 'vector' and e.trusted
        ) then 'the extension vector takes somebody who may create it: create extension vector with schema extensions'
        when v_table is not null then v_table
        when v_routine is not null then format('the application has a routine %s, whose name and arguments ours must have', v_routine)
    end;
    if v_why is not null then
        raise exception 'nothing was changed: %', v_why
            using errcode = '55000', hint = '`two-tower migrate --check` lists everything that is in the way, and what mends it.';
    end if;
end
$guard$;"""  # noqa: S608, E501


def _text(value: str) -> str:
    return f"'{value}'"


def _array(values: Any) -> str:
    return f"array[{', '.join(map(_text, values))}]"
