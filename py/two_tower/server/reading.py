"""Read from the replica that ``DATABASE_READ_URL`` names, and from the primary if the replica cannot answer.

Either way, everything committed before the work began is read: the primary reports its WAL position, and the replica
is used once it has replayed that far. So a version just activated, or a like just made, is in the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from two_tower.database import open_connection
from two_tower.errors import UserError
from two_tower.progress import Say
from two_tower.rows import one, row
from two_tower.server.connection import NoDatabase, connect, resolve_dsn
from two_tower.settings import Settings

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[Any]
    Opened = Callable[[str], AbstractContextManager[Connection]]

T = TypeVar("T")

PAUSES = (0.5, 2.0)
"""Seconds before the second and before the third attempt at the replica, which is the last."""
CATCH_UP_S = 10.0
"""How long the replica may take to be where the primary was when the work began."""
ANSWER_S = 3
"""How long the primary may take to say where it is; the replica answers without that, too."""

PASSING = {
    "40001",  # replay had to take away what the query reads
    "40P01",  # the query and replay waited for each other
    "53300",  # too many connections
    "57P01",  # shut down, or ended by an administrator
    "57P02",  # another process of the server crashed
    "57P03",  # starting, or shutting down
}
"""SQLSTATEs after which another attempt may succeed. A connection that breaks has none, or one of class 08."""


class Unusable(Exception):  # noqa: N818 - the primary answers, so nothing failed
    """Why the replica is not used."""


def reading(
    dsn: str | None,
    work: Callable[[Connection], T],
    say: Say,
    *,
    autocommit: bool = False,
    opened: Opened | None = None,
    patience: float = CATCH_UP_S,
    settings: Settings | None = None,
) -> T:
    """The result of ``work``, which only reads and can be repeated.

    A given ``dsn`` is used itself. Otherwise the replica is tried first, if there is one: at most three times if replay
    cancels the work or the connection breaks, and then the primary. The primary is used at once if the replica does not
    answer, or does not reach the primary's position within ``patience`` seconds. ``say`` hears of it. ``opened``
    makes the connections, by default as :func:`connect` does. ``settings`` are read anew unless they are given.

    Raises UserError if ``DATABASE_READ_URL`` leads to no replica of ``DATABASE_URL``, and whatever ``work`` raises.
    """
    import psycopg

    opened = opened or partial(connect, autocommit=autocommit)
    replica = None if dsn else (settings or Settings()).database_read_url
    if replica is not None:
        for pause in (*PAUSES, None):
            try:
                _require_current(replica, say, patience)
                with opened(replica) as connection:
                    return work(connection)
            except Unusable as error:
                say(f"warning: {error}; the primary answers")
                break
            except psycopg.Error as error:
                if not passes(error):
                    raise
                then = "the primary answers" if pause is None else "trying again"
                say(f"warning: the replica broke off: {_brief(error)}; {then}")
            if pause is not None:
                time.sleep(pause)
    with opened(resolve_dsn(dsn, settings)) as connection:
        return work(connection)


def replica_says() -> str | None:
    """The state of the replica in a few words; None if ``DATABASE_READ_URL`` names none."""
    replica = Settings().database_read_url
    if replica is None:
        return None
    said: list[str] = []
    try:
        _require_current(replica, said.append, patience=1.0)
    except (Unusable, UserError) as error:
        return str(error).splitlines()[0]
    return said[0] if said else "has what the primary has"


def passes(error: psycopg.Error) -> bool:
    """Whether another attempt may succeed: after a conflict with replay, or with a server that went away."""
    import psycopg

    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate in PASSING or error.sqlstate.startswith("08")


@dataclass(frozen=True)
class _Standing:
    """Which database a server has, and whether it is a standby."""

    database: str
    system: int
    """Of the cluster that it was made as, or is a physical copy of."""
    started: datetime
    follows: bool


def _standing(connection: Connection) -> _Standing:
    found = row(
        connection,
        """select pg_catalog.current_database()::pg_catalog.text,
            (select c.system_identifier from pg_catalog.pg_control_system() c),
            pg_catalog.pg_postmaster_start_time(), pg_catalog.pg_is_in_recovery()""",
    )
    return _Standing(*found)


def _require_current(url: str, say: Say, patience: float) -> None:
    """Returns once the replica has reached the primary's position at the call, or if no primary is known or answers.

    Raises Unusable if the replica does not answer or is late, UserError if it is not a replica.
    """
    import psycopg

    position = None
    try:
        with _plain(url) as replica:
            own = _standing(replica)
            try:
                with suppress(NoDatabase), _plain(resolve_dsn(), connect_timeout=ANSWER_S) as primary:
                    theirs = _standing(primary)
                    _require_replica(own, theirs)
                    if own.started != theirs.started and own.follows:
                        position = _position(primary, theirs.follows)
            except psycopg.OperationalError as error:
                say(f"warning: the primary does not answer ({_brief(error)}); the replica says what it knows")
            lacking = _wait_for(replica, position, patience) if position else 0
    except psycopg.OperationalError as error:
        raise Unusable(f"the replica does not answer: {_brief(error)}") from error
    if lacking:
        raise Unusable(f"the replica is behind: after {patience:g} s it lacks {lacking:,} bytes of the primary's log")


def _plain(url: str, **options: Any) -> Connection:
    """A connection without session settings, to query a server about itself."""
    return open_connection(url, autocommit=True, settle=False, **options)


def _require_replica(own: _Standing, theirs: _Standing) -> None:
    """Raises UserError unless what DATABASE_READ_URL leads to is a physical copy that takes no writes of its own, or
    the same server, or its standby."""
    if (own.system, own.database) != (theirs.system, theirs.database):
        raise UserError(
            f"DATABASE_READ_URL leads to a database {own.database} that is no replica of {theirs.database}, to which "
            "DATABASE_URL leads",
            f"let it lead to {theirs.database} on a streaming standby, or leave it out",
        )
    if own.started != theirs.started and not own.follows and not theirs.follows:
        raise UserError(
            "DATABASE_READ_URL and DATABASE_URL lead to two servers that both take writes: a standby was promoted, and "
            "each has what the other lacks",
            "let DATABASE_URL lead to the one that is the primary now, and DATABASE_READ_URL to a standby of it",
        )


def _position(primary: Connection, follows: bool) -> str:
    """How far the log is that holds all that is committed now.

    Only what was flushed is sent, and a commit may be ahead of that (``synchronous_commit = off``): the log's writer
    follows within a second. Behind the end of a page, what comes next begins after the page's header.
    """
    if follows:
        return str(one(primary, "select pg_catalog.pg_last_wal_replay_lsn()"))
    written = one(primary, "select pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text")
    flushed = written
    for _ in range(20):
        flushed, whole = row(
            primary,
            """select f.lsn::pg_catalog.text, f.lsn >= w.lsn or (
                pg_catalog.pg_wal_lsn_diff(f.lsn, '0/0') %% pg_catalog.current_setting('wal_block_size')::numeric = 0
                and pg_catalog.pg_wal_lsn_diff(w.lsn, f.lsn) <= 40
            )
            from pg_catalog.pg_current_wal_flush_lsn() as f (lsn), (select %s::pg_catalog.pg_lsn) as w (lsn)""",
            (written,),
        )
        if whole:
            break
        time.sleep(0.05)
    return str(flushed)


def _wait_for(replica: Connection, position: str, patience: float) -> int:
    """How many bytes before ``position`` the replica lacks after ``patience`` seconds; 0, and sooner, if none."""
    end = time.monotonic() + patience
    while True:
        lacking = one(
            replica,
            """select pg_catalog.pg_wal_lsn_diff(
                %s::pg_catalog.pg_lsn, coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0')
            )::pg_catalog.int8""",
            (position,),
        )
        if lacking <= 0 or time.monotonic() >= end:
            return max(int(lacking), 0)
        time.sleep(0.05)


def _brief(error: Exception) -> str:
    """The first line of a message of a server or libpq."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
