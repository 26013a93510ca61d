"""Connections to a given database, with session settings. ``server/connection.py`` chooses the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from two_tower.errors import UserError
from two_tower.paths import DATABASE_FILES
from two_tower.progress import Say

if TYPE_CHECKING:
    import psycopg

SESSION = {
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    "row_security": "on",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "transaction_timeout": "0",
    "idle_session_timeout": "0",
}
"""Session settings that the program relies on, as ``pg_settings`` shows them, whatever is set on database or role.

The search path is not among them: triggers of the application, which an import fires, may need theirs, so our
statements qualify their names instead.
"""
HARMLESS = {"timezone", "bytea_output", "quote_all_identifiers"} | {n for n in SESSION if n.endswith("_timeout")}
"""Those of :data:`SESSION` whose other values change no result: display of times, and limits that raise an error."""


SNAPSHOT = "set transaction isolation level repeatable read, read only"
"""The first statement of a transaction whose queries all see the same."""

DEFAULTS = {"connect_timeout": "15", "keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}
"""Connection parameters unless the connection string, its service or the environment has others: a server that cannot
be reached is given up after 15 seconds, a host that falls silent during a query after a minute.

Not ``tcp_user_timeout``: it would also end a COPY to a server that reads nothing because it waits for a lock.
"""


def open_connection(
    dsn: str, *, autocommit: bool = False, settle: bool = True, as_owner: bool = True, **options: Any
) -> psycopg.Connection[Any]:
    """A psycopg connection to ``dsn``. Its session is set by :func:`settle_session` unless disabled, and a superuser
    switches to the owner of schema ``two_tower`` unless ``as_owner`` is false.

    Every connection of the program is opened here. ``options`` are connection parameters. Raises psycopg.Error
    if it cannot connect, UserError as settle_session.
    """
    import psycopg

    given = _parameters(dsn)
    # Those given are passed, too: psycopg does not read the connect_timeout of a service.
    options = {name: given.get(name) or value for name, value in DEFAULTS.items()} | options
    # The encoding is a connection parameter, which poolers know and which takes precedence over all defaults.
    options = {"application_name": "two-tower", "client_encoding": "UTF8", **options}
    try:
        # A transaction pooler may give each transaction another session, so nothing may be prepared.
        connection: psycopg.Connection[Any] = psycopg.connect(dsn, autocommit=True, prepare_threshold=None, **options)
    except psycopg.OperationalError as error:
        _explain_refusal(dsn, error)
        raise
    try:
        if settle:
            settle_session(connection)
            if as_owner:
                _become_owner(connection)
        connection.autocommit = autocommit
    except BaseException:
        connection.close()
        raise
    return connection


def _parameters(dsn: str) -> dict[str, str]:
    """Connection parameters of the environment, of ``dsn`` and of the service that it names."""
    from psycopg import pq
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    own = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value}
    known = pq.Conninfo.get_defaults()
    if "service" in own:
        # libpq reads a service only when it connects. It refuses two hosts with one address before it looks for them.
        known = pq.PGconn.connect_start(make_conninfo(dsn, host=",", hostaddr="127.0.0.1").encode()).info
    return {option.keyword.decode(): (option.val or b"").decode() for option in known} | own


def _explain_refusal(dsn: str, error: psycopg.OperationalError) -> None:
    """Raises UserError if a pooler refuses options of the connection string, or if the login may not connect to the
    database; libpq has no SQLSTATE for either."""
    if "unsupported startup parameter" in str(error):  # PgBouncer's words, which are not translated
        raise UserError(
            "the connection pooler refuses the options in the connection string (or PGOPTIONS)",
            "leave them out, or connect to the server itself; a role can be the login's default instead: "
            "alter role LOGIN set role = service_role",
        ) from error
    if "CONNECT" not in str(error):  # the message contains the privilege's name in every language
        return
    known = _parameters(dsn)
    role = known["user"]
    database = known["dbname"] or role
    raise UserError(
        f"the role {role} may not connect to the database {database}",
        f'as the owner of the database run: grant connect on database "{database}" to "{role}"',
    ) from error


def without_password(dsn: str) -> str:
    """The same connection string without secrets, to be shown."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    secret = ("password", "sslpassword", "oauth_client_secret")
    return make_conninfo("", **{name: value for name, value in conninfo_to_dict(dsn).items() if name not in secret})


def settle_session(connection: psycopg.Connection[Any]) -> None:
    """Apply :data:`SESSION`, except for what the connection string itself sets (``options=-c …``).

    It uses SET and not the connection string, since poolers refuse options. Behind a transaction pooler (PgBouncer,
    Supavisor) a SET would affect the next client of the server connection, so nothing is set; a UserError names
    defaults of the database that would change results. ``connection`` is in autocommit mode.
    """
    from psycopg.rows import tuple_row

    cursor = connection.cursor(row_factory=tuple_row)
    cursor.execute(
        "select s.name, s.setting, pg_catalog.pg_backend_pid()"
        " from pg_catalog.pg_settings s"
        " join rows from (pg_catalog.unnest(%s::pg_catalog.text[]), pg_catalog.unnest(%s::pg_catalog.text[]))"
        " as w (name, setting) on w.name operator(pg_catalog.=) pg_catalog.lower(s.name)"
        " where s.setting operator(pg_catalog.<>) w.setting and s.source operator(pg_catalog.<>) 'client'",
        (list(SESSION), list(SESSION.values())),
    )
    other = [row for row in cursor.fetchall() if not (row[0] == "DateStyle" and row[1].startswith("ISO"))]
    # As is_pooled(), in one query.
    if any(pid != connection.info.backend_pid for *_, pid in other):
        if unfit := [(name, value) for name, value, _ in other if name.lower() not in HARMLESS]:
            said = ", ".join(f"{name} = {value}" for name, value in unfit)
            raise UserError(
                f"database {connection.info.dbname} has {said}, which cannot be changed through a connection pooler",
                "connect to the server itself, not to its pooler",
            )
        return
    for name, *_ in other:
        cursor.execute("select pg_catalog.set_config(%s, %s, false)", (name, SESSION[name.lower()]))


_OWNER = """
select o.rolname::pg_catalog.text, pg_catalog.pg_backend_pid()
from pg_catalog.pg_namespace n
join pg_catalog.pg_roles o on o.oid operator(pg_catalog.=) n.nspowner
join pg_catalog.pg_roles r on r.rolname operator(pg_catalog.=) current_user
where n.nspname operator(pg_catalog.=) 'two_tower' and r.rolsuper and not o.rolsuper
"""


def _become_owner(connection: psycopg.Connection[Any]) -> None:
    """Switch to the owner of schema ``two_tower``, if the session is a superuser's and the owner is not one.

    Functions called by the application's relations then run as the owner of those relations (``preflight.owner``). A
    function that runs ``reset role`` is a superuser again; to prevent that, log in as the owner itself.
    """
    from psycopg import sql
    from psycopg.rows import tuple_row

    found = connection.cursor(row_factory=tuple_row).execute(_OWNER).fetchone()
    if found is None:
        return
    owner, pid = found
    if pid != connection.info.backend_pid:
        raise UserError(
            f"the recommender of database {connection.info.dbname} belongs to {owner}, whose role a superuser cannot "
            "take through a connection pooler",
            f"connect as {owner}, or to the server itself",
        )
    connection.execute(sql.SQL("set role {}").format(sql.Identifier(owner)))


@contextmanager
def settled_transaction(
    connection: psycopg.Connection[Any], *, as_owner: bool = True, force_rollback: bool = False
) -> Iterator[None]:
    """A transaction with the settings of :func:`open_connection` for itself alone, so that it works behind any pooler.

    BEGIN and the settings go to the server as one message. Between two messages the transaction would be idle, and an
    idle-transaction limit of the role or the database could end it before the setting is changed. ``connection`` is in
    autocommit mode.
    """
    import psycopg

    with ExitStack() as transaction:
        with connection.pipeline():
            # connection.transaction() would keep the pipeline until its end.
            transaction.enter_context(psycopg.Transaction(connection, force_rollback=force_rollback))
            if as_owner:
                connection.execute(f"select pg_catalog.set_config('role', o.rolname, true) from ({_OWNER}) as o")  # noqa: S608
            connection.execute(
                "select pg_catalog.set_config(s.name, w.setting, true)"
                " from pg_catalog.pg_settings s"
                " join rows from (pg_catalog.unnest(%s::pg_catalog.text[]), pg_catalog.unnest(%s::pg_catalog.text[]))"
                " as w (name, setting) on w.name operator(pg_catalog.=) pg_catalog.lower(s.name)"
                " where s.name operator(pg_catalog.!~) '^default_transaction'",
                (list(SESSION), list(SESSION.values())),
            )
        yield


def is_pooled(connection: psycopg.Connection[Any]) -> bool:
    """Whether a transaction pooler is in between: it reports a made-up process id to its clients."""
    from two_tower.rows import one

    return bool(one(connection, "select pg_catalog.pg_backend_pid()") != connection.info.backend_pid)


def take_turn(connection: psycopg.Connection[Any], key: int | str, others: str, say: Say) -> None:
    """Wait for the transaction that holds the advisory lock ``key``, and hold it until this transaction ends.

    A text is the key of that name, as routines of ``sql/`` take it. If there is a wait, ``say`` is told that it is for
    ``others``, and for which process.
    """
    from two_tower.rows import column, one

    if isinstance(key, str):
        key = int(one(connection, "select pg_catalog.hashtextextended('two_tower.' || %s, 0)", (key,)))
    if one(connection, "select pg_catalog.pg_try_advisory_xact_lock(%s)", (key,)):
        return
    holders = column(
        connection,
        """select pg_catalog.format(
            'process %%s (%%s), whose transaction began at %%s',
            l.pid, coalesce(nullif(a.application_name, ''), 'of ' || a.usename, 'of another role'),
            coalesce(pg_catalog.to_char(a.xact_start at time zone 'UTC', 'HH24:MI:SS "UTC"'), 'an unknown time')
        )
        from pg_catalog.pg_locks l
        join pg_catalog.pg_database d on d.oid = l.database and d.datname = pg_catalog.current_database()
        left join pg_catalog.pg_stat_activity a on a.pid = l.pid
        where l.locktype = 'advisory' and l.granted and l.objsubid = 1
            and (l.classid::pg_catalog.int8 << 32 | l.objid::pg_catalog.int8) = %s""",
        (key,),
    )
    for holder in holders:  # none, if it has just ended
        say(f"waiting for {others}: {holder}")
    connection.execute("select pg_catalog.pg_advisory_xact_lock(%s)", (key,))


def another(connection: psycopg.Connection[Any], **options: Any) -> psycopg.Connection[Any]:
    """One more connection to the same database of the same server, in autocommit mode; ``options`` are those of
    :func:`open_connection`."""
    from psycopg.conninfo import make_conninfo

    info = connection.info
    # The connection string may name several servers.
    parameters: dict[str, Any] = info.get_parameters() | {"port": info.port}
    for name in ("host", "hostaddr", "password"):
        parameters[name] = getattr(info, name) or None
    return open_connection(make_conninfo("", **parameters), autocommit=True, **options)


def require_writable(connection: psycopg.Connection[Any]) -> None:
    """Raises UserError if the session cannot write: on a standby, or if its transactions are read-only."""
    from two_tower.rows import row

    standby, read_only = row(
        connection, "select pg_is_in_recovery(), current_setting('transaction_read_only')::pg_catalog.bool"
    )
    if not connection.autocommit:
        connection.rollback()  # leaves no transaction open
    name = connection.info.dbname
    if standby:
        raise UserError(
            f"this server is a standby, on which nothing of {name} can be changed", "connect to the primary"
        )
    if read_only:
        raise UserError(
            f"transactions of this session on {name} are read-only (default_transaction_read_only), so nothing can be"
            " changed",
            "connect without that setting, which the connection string or PGOPTIONS has",
        )


_STATE = """
select pg_catalog.pg_get_userbyid(n.nspowner),
    pg_catalog.has_schema_privilege(coalesce(%s, current_user), n.oid, 'usage'),
    -- Where `two-tower migrate` keeps it, or plain `yoyo apply`.
    (
        select pg_catalog.format('%%I.%%I', h.nspname, c.relname)
        from pg_catalog.pg_class c join pg_catalog.pg_namespace h on h.oid = c.relnamespace
        where c.relname = '_yoyo_migration' and h.nspname in ('two_tower', 'public')
            and pg_catalog.has_schema_privilege(h.oid, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select')
        order by h.nspname desc limit 1
    ),
    exists (select from pg_catalog.pg_class c where c.relnamespace = n.oid and c.relname = 'model_versions'),
    exists (select from pg_catalog.pg_class c where c.relnamespace = n.oid and c.relname = 'problems')
from pg_catalog.pg_namespace n where n.nspname = 'two_tower'
"""


def require_migrated(connection: psycopg.Connection[Any], role: str | None = None) -> None:
    """Raises UserError unless the database has exactly this program's migrations and ``role`` may use it.

    By default the role is the login. For a role that may not read which migrations were applied, the existence of
    objects is checked instead.
    """
    from psycopg import sql
    from psycopg.rows import tuple_row

    name, login = connection.info.dbname, connection.info.user
    cursor = connection.cursor(row_factory=tuple_row)
    found = cursor.execute(_STATE, (role,)).fetchone()
    if found is None or not found[3]:
        raise UserError(f"database {name} is not migrated", "two-tower migrate")
    owner, usable, history, _, finished = found
    if not usable:
        raise UserError(
            f"role {login} may not use the recommender of database {name}, which belongs to {owner}",
            f'Connect as {owner}, or as {owner} run: grant service_role to "{login}";',
        )
    files = (DATABASE_FILES / "migrations").glob("[0-9]*")
    known = {path.stem for path in files if not path.name.endswith(".rollback.sql")}
    applied = known
    if history:
        query = sql.SQL("select migration_id from {}").format(sql.SQL(history))
        # A member of service_role or two_tower_viewer does not bypass policies, and sees no rows.
        applied = {migration for (migration,) in cursor.execute(query)} or known
        if history.startswith("public."):
            applied &= known  # the others are an application's own
    if not connection.autocommit:
        connection.rollback()  # leaves no transaction open
    if newer := sorted(applied - known):
        raise UserError(
            f"database {name} is newer than this program, which does not know migration {newer[-1]}",
            "pip install --upgrade pg-two-tower",
        )
    if lacking := sorted(known - applied):
        raise UserError(
            f"database {name} is older than this program: it lacks migration {lacking[0]}", "two-tower migrate"
        )
    if not finished:
        raise UserError(
            f"database {name} is older than this program, or migrated in part: routines are missing",
            "two-tower migrate",
        )
