"""State by yoyo migrations, each with a rollback; logic applied again as a whole.

Files of ``migrations/`` run once. ``sql/`` has routines, views, triggers and privileges, which are applied every time,
in the order of their paths. ``-- include FILE`` inside a PL/Python body is replaced by the text of that file, so
deployed or dumped routines need no file.

A run is one transaction, after checks of everything that could fail (``preflight``), so nobody ever sees half of it,
even after a failure.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import psycopg
import yoyo
from psycopg import sql
from yoyo import internalmigrations
from yoyo.backends.base import SavepointTransactionManager
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.migrations import default_migration_table

from two_tower.database import open_connection, settled_transaction, take_turn
from two_tower.errors import UserError
from two_tower.paths import DATABASE_FILES
from two_tower.progress import Say
from two_tower.rows import one
from two_tower.server import ownership, preflight
from two_tower.server.connection import resolve_dsn
from two_tower.server.contract import ROUTINES

MIGRATIONS = DATABASE_FILES / "migrations"
LOGIC = DATABASE_FILES / "sql"
TEARDOWN = LOGIC / "teardown.sql"
ONNXRUNTIME = LOGIC / "35_onnxruntime"
"""Routines in PL/Python, which are created if this role may create them."""

LOCK = 7207_0001
"""Key of the advisory lock that permits one migration at a time."""

SETTINGS = """-- Routines refer to each other in any order; tests check every body with plpgsql_check.
set local check_function_bodies = off;
set local client_min_messages = warning;
set local search_path = pg_catalog, pg_temp;"""

REMEMBER = """do $there$
begin
    -- Relations and routines that exist already in our schemas.
    perform set_config('two_tower.there', '0' || coalesce(string_agg(',' || o.oid, ''), ''), true)
    from (
        select c.oid from pg_catalog.pg_class c
        where c.relnamespace in (to_regnamespace('public'), to_regnamespace('two_tower'))
        union all
        select p.oid from pg_catalog.pg_proc p
        where p.pronamespace in (to_regnamespace('public'), to_regnamespace('two_tower'))
    ) as o;
end
$there$;"""

CLOSE = """do $close$
declare
    v_there oid[] := string_to_array(current_setting('two_tower.there'), ',')::oid[];
    v_granted record;
begin
    -- Revoke what the application's default privileges granted to other roles on our new objects.
    for v_granted in
        with ours as (
            select case c.relkind when 'S' then 'sequence ' else 'table ' end || c.oid::regclass as name,
                c.oid, c.relowner as owner, c.relacl as acl
            from pg_catalog.pg_class c
            where c.relkind in ('r', 'p', 'v', 'S') and (
                c.relnamespace = to_regnamespace('two_tower')
                or c.oid in (
                    select to_regclass(o.name) from two_tower.created_objects o where o.kind in ('table', 'view')
                )
            )
            union all
            select 'routine ' || p.oid::regprocedure, p.oid, p.proowner, p.proacl from pg_catalog.pg_proc p
            where p.pronamespace = to_regnamespace('two_tower')
                or p.oid in (select to_regprocedure(o.name) from two_tower.created_objects o where o.kind = 'routine')
        )
        select distinct o.name, pg_get_userbyid(a.grantee) as role
        from ours o cross join lateral aclexplode(o.acl) a
        where a.grantee not in (0, o.owner) and o.oid <> all (v_there)
            -- The roles to which migrations and 90_privileges.sql grant privileges.
            and pg_get_userbyid(a.grantee)
            not in ('anon', 'authenticated', 'service_role', 'authenticator', 'two_tower_viewer')
    loop
        execute format('revoke all on %s from %I', v_granted.name, v_granted.role);
    end loop;
end
$close$;"""

RELOAD = "notify pgrst, 'reload schema';"
"""PostgREST caches the schema."""

_INCLUDE = re.compile(r"^-- include (\S+)$", re.MULTILINE)
_VECTOR = re.compile(r"(?<![\w.])extensions\.")
_ATTEMPTS = 20
_PATIENCE_MS = 2000  # how long a statement may wait for the application's locks, and block others behind it


def migrate(
    dsn: str | None = None,
    to: str | None = None,
    *,
    take_names: bool = False,
    say: Say = lambda line: None,
) -> dict[str, list[str]]:
    """Applies pending migrations and then all of ``sql/``; with ``to``, goes forward or back to that migration.

    ``to`` is a migration's id or its number; ``"0"`` removes everything. Going back drops the logic; it is applied
    again by the checkout whose newest migration is ``to``. ``take_names`` renames objects of the application in
    ``public`` that have names of ours; going back restores them. ``say`` is told of each change to existing objects.

    Returns the ids ``applied`` and ``rolled_back``. A run is one transaction, which is repeated if the application
    holds a lock for too long. Several runs at once are safe: they take turns by an advisory lock, and the later ones
    find nothing to do. Raises UserError, with everything that is in the way, before anything is written.
    """
    with _connection(dsn, "two-tower migrate") as connection:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with _transaction(connection, take_names, say):
                    return _run(connection, to, take_names, say)
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
                if attempt == _ATTEMPTS:
                    raise UserError(
                        f"the application's tables were in use at each of {_ATTEMPTS} attempts; nothing was changed: "
                        f"{error.diag.message_primary}",
                        "end long transactions "
                        "(select * from pg_stat_activity where xact_start < now() - interval '1 minute'), "
                        "or migrate at a quieter time",
                    ) from error
                say("the application's tables are in use; trying again")
                time.sleep(min(0.2 * attempt, 2))
            except psycopg.Error as error:
                _explain_event_trigger(connection, error)
                raise
    raise AssertionError  # unreachable: the last attempt returns or raises


def _explain_event_trigger(connection: psycopg.Connection[Any], error: psycopg.Error) -> None:
    """Raises UserError if the error comes from an event trigger of the application that forbids a statement."""
    context = error.diag.context or ""
    if connection.closed:
        return
    for name, schema, function, enable in connection.execute(
        """select quote_ident(e.evtname), quote_ident(n.nspname), quote_ident(p.proname),
            case e.evtenabled when 'A' then 'enable always' when 'R' then 'enable replica' else 'enable' end
        from pg_event_trigger e join pg_proc p on p.oid = e.evtfoid join pg_namespace n on n.oid = p.pronamespace
        where e.evtenabled <> 'D' order by 1"""
    ).fetchall():
        # The context has the function's schema, unless that is on the path.
        if f"function {schema}.{function}() " in context or f"function {function}() " in context:
            raise UserError(
                f"the event trigger {name} refuses what is to be done, and nothing was changed: "
                f"{error.diag.message_primary}",
                f"as a superuser run: alter event trigger {name} disable; migrate; "
                f"then run: alter event trigger {name} {enable}",
            ) from error


def check(dsn: str | None = None, *, take_names: bool = False, say: Say = lambda line: None) -> preflight.Report:
    """What would prevent ``migrate``, and what it would change. Changes nothing. ``say`` is told if it has to wait."""
    with _connection(dsn, "two-tower migrate --check") as connection, _transaction(connection, take_names, say):
        connection.execute("set transaction read only")
        report = preflight.look(connection)
        if not preflight.reaches(connection):
            return report
        _refuse_newer(connection, _marks(connection), [m.id for m in yoyo.read_migrations(str(MIGRATIONS))])
        ahead = [f"migration {name} is applied" for name in waiting(connection)]
        logic = [] if report.problems else ["the routines, views and triggers of schema two_tower are replaced"]
        return preflight.Report(report.problems, [*report.changes, *ahead, *logic], report.notes)


def pending(dsn: str | None = None) -> list[str]:
    """Ids of migrations that ``migrate`` would apply. Changes nothing."""
    with open_connection(resolve_dsn(dsn), autocommit=True, as_owner=False) as connection:
        return waiting(connection)


def apply_logic(connection: psycopg.Connection[Any]) -> None:
    """Runs all files of ``sql/`` except the teardown, inside the caller's transaction.

    Privileges that default privileges granted on our new objects are revoked; those on existing objects may have been
    granted by an operator, and stay.
    """
    if not one(connection, "select nullif(current_setting('two_tower.there', true), '') is not null"):
        # Plain yoyo ran the migrations, so existing objects were not recorded before.
        installed = one(connection, "select exists (select from two_tower.installation)")
        connection.execute(REMEMBER if installed else "set local two_tower.there = '0'")
    shown = _signatures(connection)
    row = connection.execute(
        """select quote_ident(n.nspname) from pg_extension e join pg_namespace n on n.oid = e.extnamespace
        where e.extname = 'vector'"""
    ).fetchone()
    for name, text in logic(row[0] if row else "extensions", onnxruntime=preflight.python_usable(connection)):
        try:
            # Bytes, not a template: there are no parameters.
            connection.execute(text.encode())
        except psycopg.Error as error:
            error.add_note(f"while applying {name}")
            raise
    ownership.hand_over(connection)
    if _signatures(connection) != shown:
        connection.execute(RELOAD)


def logic(vector: str = "extensions", *, onnxruntime: bool = False) -> Iterator[tuple[str, str]]:
    """What ``apply_logic`` runs, in order: name and text of each part.

    ``vector`` is the schema of pgvector, quoted. Without ``onnxruntime``, existing routines of it stay as they are.
    """
    yield "settings", SETTINGS
    # Settings hnsw.* are known once pgvector is loaded; before, only a superuser may set them.
    yield "pgvector", f"do $load$ begin perform '[1]'::{vector}.vector; end $load$;"
    for path in logic_files():
        if onnxruntime or path.parent != ONNXRUNTIME:
            yield str(path.relative_to(DATABASE_FILES)), _VECTOR.sub(f"{vector}.", expand(path))
    literal = "'{}'".format
    yield (
        "what was made",
        f"""insert into two_tower.created_objects
select 'routine', 'public.' || s
from unnest(array[{", ".join(map(literal, ROUTINES))}]) as s
where to_regprocedure('public.' || s) is not null
on conflict do nothing;""",  # noqa: S608 - constants of ours
    )
    yield (
        "the installation",
        f"""insert into two_tower.installation as i (program, logic_sha256)
values ({literal(metadata.version("pg-two-tower"))}, {literal(logic_checksum())})
on conflict (one) do update
set program = excluded.program, logic_sha256 = excluded.logic_sha256, applied_at = now()
where (i.program, i.logic_sha256) is distinct from (excluded.program, excluded.logic_sha256);""",  # noqa: S608
    )
    yield "default privileges", CLOSE


def logic_files() -> list[Path]:
    """The files of ``sql/`` in the order in which they are applied."""
    return sorted(path for path in LOGIC.rglob("*.sql") if path != TEARDOWN)


def logic_checksum() -> str:
    """sha256 of everything that ``apply_logic`` runs."""
    return hashlib.sha256("\0".join(expand(path) for path in logic_files()).encode()).hexdigest()


def expand(path: Path) -> str:
    """Text of an SQL file with its includes."""
    return _INCLUDE.sub(lambda match: (DATABASE_FILES / match[1]).read_text().strip("\n"), path.read_text())


def checksum(path: Path) -> str:
    """sha256 of a migration file, as ``migrations/frozen.txt`` has it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ------------------------------------------------------------------------------------------------ one run


def _run(connection: psycopg.Connection[Any], to: str | None, take_names: bool, say: Say) -> dict[str, list[str]]:
    known = yoyo.read_migrations(str(MIGRATIONS))
    wanted = _wanted(sorted(m.id for m in known), to)
    preflight.require_reach(connection)
    where = _marks(connection)
    _refuse_newer(connection, where, [m.id for m in known])
    going_back = to is not None and bool(_applied(connection) - wanted)
    report = preflight.Report([], [], []) if going_back else preflight.require(connection)
    connection.execute(REMEMBER)
    if where == "two_tower" and wanted:
        connection.execute("create schema if not exists two_tower")
    elif where == "two_tower" and not _exists(connection, "two_tower"):
        return {"applied": [], "rolled_back": []}
    backend = _Backend(connection, where)
    pending = [m for m in backend.to_apply(known) if m.id in wanted]
    surplus = [m for m in backend.to_rollback(known) if m.id not in wanted]
    if surplus:
        connection.execute(TEARDOWN.read_text().encode())
    for migration in surplus:
        backend.rollback_one(migration)
    for migration in pending:
        backend.apply_one(migration)
    if wanted and len(wanted) == len(known):
        if take_names:
            preflight.put_aside(connection)
        apply_logic(connection)
        if where == "public":
            # Plain yoyo reads these tables while its hooks run, so the hooks cannot do this.
            ownership.hand_over(connection, _history(connection, [m.id for m in known]))
    if where == "two_tower" and not wanted:
        backend.drop()
        connection.execute("drop schema two_tower")
    for line in [*report.changes, *report.notes]:
        say(line)
    return {"applied": [m.id for m in pending], "rolled_back": [m.id for m in surplus]}


class _Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]  # yoyo has no types
    """yoyo inside a transaction of ours: its steps and marks on our connection, its tables in the given schema.

    By default it applies each migration on a connection of its own, and first commits its tables in ``public``.
    """

    def __init__(self, connection: psycopg.Connection[Any], schema: str) -> None:
        self._connection = connection
        self.DatabaseError = psycopg.Error
        self.migration_table = default_migration_table
        self.has_transactional_ddl = True
        # yoyo creates its tables in the first schema of the path.
        connection.execute(sql.SQL("set local search_path = {}").format(sql.Identifier(schema)))

    def copy(self) -> _Backend:
        return self

    def __exit__(self, *_: object) -> None:
        """Does nothing: the connection is the caller's."""

    def transaction(self, rollback_on_exit: bool = False) -> SavepointTransactionManager:
        return SavepointTransactionManager(self, rollback_on_exit=rollback_on_exit)

    def lock(self, timeout: float = 10) -> Any:
        return nullcontext()  # the transaction has an advisory lock already

    def ensure_internal_schema_updated(self) -> None:
        if internalmigrations.needs_upgrading(self):
            internalmigrations.upgrade(self)
            for table in self.list_tables():
                for statement in closed(table):
                    self._connection.execute(statement.encode())

    def list_tables(self, **_: object) -> list[str]:
        rows = self._connection.execute(
            "select relname::text from pg_class where relnamespace = current_schema()::regnamespace and relkind = 'r'"
        )
        return [name for (name,) in rows]

    def drop(self) -> None:
        """Drops yoyo's own tables."""
        for table in (self.migration_table, self.log_table, self.version_table, self.lock_table):
            self.execute(f"drop table if exists {self.quote_identifier(table)}")


def closed(table: str) -> list[str]:
    """Statements that restrict one of yoyo's tables to its owner."""
    return [
        f"alter table {table} enable row level security",
        f"revoke all on {table} from public",
        f"comment on table {table} is 'yoyo: what was applied'",
    ]


def _connection(dsn: str | None, application_name: str) -> psycopg.Connection[Any]:
    """A connection whose transactions have the mode that we need, whatever the default."""
    connection = open_connection(resolve_dsn(dsn), autocommit=True, settle=False, application_name=application_name)
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    # A standby refuses this mode; preflight reports that it is one.
    connection.read_only = None if connection.info.parameter_status("in_hot_standby") == "on" else False
    return connection


@contextmanager
def _transaction(connection: psycopg.Connection[Any], take_names: bool, say: Say) -> Iterator[None]:
    with settled_transaction(connection, as_owner=False):
        connection.execute("set local search_path = pg_catalog, pg_temp")
        take_turn(connection, LOCK, "another migration", say)
        connection.execute(f"set local lock_timeout = {_PATIENCE_MS}")
        connection.execute("select set_config('two_tower.take_names', %s, true)", ("on" if take_names else "off",))
        yield


# ------------------------------------------------------------------------------------------------ applied migrations


def _marks(connection: psycopg.Connection[Any]) -> str:
    """The schema with the record of what was applied: ``public`` if plain ``yoyo apply`` began, else ours."""
    known = [m.id for m in yoyo.read_migrations(str(MIGRATIONS))]
    # Nothing is read without tables of ours: a relation named as yoyo's table may be a view, which would run code as
    # the role that migrates.
    if (
        _exists(connection, "two_tower.created_objects")
        and _exists(connection, "public._yoyo_migration")
        and not _exists(connection, "two_tower._yoyo_migration")
    ):
        row = connection.execute(
            "select exists (select from public._yoyo_migration where migration_id = any (%s))", (known,)
        ).fetchone()
        if row and row[0]:
            return "public"
    return "two_tower"


def _applied(connection: psycopg.Connection[Any]) -> set[str]:
    table = f"{_marks(connection)}.{default_migration_table}"
    if not _exists(connection, table):
        return set()
    return {name for (name,) in connection.execute(f"select migration_id from {table}")}  # noqa: S608 - two constants


def _history(connection: psycopg.Connection[Any], known: list[str]) -> list[str]:
    """yoyo's own tables in ``public``, unless the application keeps migrations of its own there."""
    if _applied(connection) - set(known):
        return []
    rows = connection.execute(
        """select 'public.' || relname from pg_class
        where relnamespace = 'public'::regnamespace and relkind = 'r'
            and relname in ('_yoyo_migration', '_yoyo_log', '_yoyo_version', 'yoyo_lock')"""
    )
    return [name for (name,) in rows]


def waiting(connection: psycopg.Connection[Any]) -> list[str]:
    """Ids of migrations that are not applied."""
    done = _applied(connection)
    return [m.id for m in yoyo.read_migrations(str(MIGRATIONS)) if m.id not in done]


def _refuse_newer(connection: psycopg.Connection[Any], where: str, known: list[str]) -> None:
    unknown = sorted(_applied(connection) - set(known)) if where == "two_tower" else []
    if unknown:
        raise UserError(
            f"this database is newer than this program: it has {', '.join(unknown)}, "
            f"and the program ends at {max(known)}",
            "install the pg-two-tower that migrated it, or a later one",
        )


def _exists(connection: psycopg.Connection[Any], name: str) -> bool:
    """Whether there is a relation of this name, or for a name without a dot, a schema."""
    function = "to_regclass" if "." in name else "to_regnamespace"
    return bool(one(connection, f"select {function}(%s) is not null", (name,)))


def _signatures(connection: psycopg.Connection[Any]) -> list[str]:
    """The changeable parts of our objects that PostgREST shows; types by oid, which no ``search_path`` affects."""
    rows = connection.execute(
        """select row(
            p.proname, p.proargtypes, p.proallargtypes, p.proargmodes, p.proargnames, p.pronargdefaults,
            p.prorettype, p.proretset
        )::text
        from pg_proc p where p.pronamespace = 'public'::regnamespace
        union all
        select c.relname || string_agg(a.attname, ',' order by a.attnum)
        from pg_class c join pg_attribute a on a.attrelid = c.oid
        where c.relnamespace = 'public'::regnamespace and c.relkind = 'v' and a.attnum > 0 group by c.oid, c.relname
        order by 1"""
    ).fetchall()
    return [row[0] for row in rows]


def _wanted(known: list[str], to: str | None) -> set[str]:
    if to is None:
        return set(known)
    if to == "0":
        return set()
    matches = [name for name in known if name == to or name.split(".")[0] == to]
    if len(matches) != 1:
        raise UserError(f"there is no migration {to!r}", f"choose one of: 0, {', '.join(known)}")
    return set(known[: known.index(matches[0]) + 1])
