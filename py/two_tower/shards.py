"""Several servers, each with its own users, and one catalogue that the first of them publishes to the others.

Rows travel by PostgreSQL's logical replication, and each shard refreshes and serves by itself. This module knows which
servers there are, and queries all of them; ``lifecycle/shards.py`` has the operations on all.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any, TypeVar

import psycopg

from two_tower.database import another, is_pooled, open_connection, require_migrated, require_writable
from two_tower.errors import GateFailed, UserError
from two_tower.rows import column, one

Connection = psycopg.Connection[Any]
Connections = Mapping[str, Connection]
Failure = UserError | psycopg.Error
Answer = TypeVar("Answer")
Place = TypeVar("Place")

CATALOGUE = (
    "public.videos", "public.tags", "public.performers", "public.video_tags", "public.video_performers",
    "two_tower.content_vectors", "two_tower.promotions",
)  # fmt: skip
MODELS = {
    "two_tower.model_versions": "version",
    "two_tower.model_files": "model_version",
    "two_tower.model_documents": "model_version",
    "two_tower.model_segments": "model_version",
    "two_tower.model_inputs": "model_version",
    "two_tower.model_weights": "model_version",
    "two_tower.neighbour_lists": "model_version",
    "two_tower.vocabularies": "model_version",
}
"""Tables of models → their column of the version. The first shard publishes these and :data:`CATALOGUE`, and the others
subscribe, as docs/scaling.md sets it up."""

LOOK_SECONDS = 10.0
"""Between two looks whether a shard that has not answered yet still takes connections."""
SILENT_SECONDS = 30
"""How long it may take with that."""

LEAVE_OUT = "start it, or leave it out by name: --without NAME"


@dataclass(frozen=True)
class Shard:
    """One server."""

    name: str
    dsn: str = field(repr=False)


def parse(setting: str | None) -> list[Shard]:
    """The shards in ``TWO_TOWER_SHARDS``: ``NAME=URL`` each, separated by spaces or lines.

    Raises UserError if there is none, or an invalid one. No message has a URL, which may contain a password.
    """
    hint = "TWO_TOWER_SHARDS='east=postgresql://… west=postgresql://…', the one that publishes the catalogue first"
    found: list[Shard] = []
    for number, word in enumerate((setting or "").split(), 1):
        name, equals, dsn = word.partition("=")
        if not (equals and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)):
            raise UserError(f"entry {number} of TWO_TOWER_SHARDS is not NAME=URL", hint)
        if not dsn.startswith(("postgresql://", "postgres://")):
            raise UserError(f"TWO_TOWER_SHARDS gives {name} no URL that begins with postgresql://", hint)
        if name in {shard.name for shard in found}:
            raise UserError(f"TWO_TOWER_SHARDS names {name} twice", hint)
        found.append(Shard(name, dsn))
    if not found:
        raise UserError("TWO_TOWER_SHARDS names no server", hint)
    return found


# ------------------------------------------------------------------------------------------------ asking all of them


def connect(shard: Shard, *, writes: bool = False, autocommit: bool = True) -> Connection:
    """A connection to a shard. Raises UserError or psycopg.Error if it is down or unfit."""
    connection = open_connection(shard.dsn, autocommit=autocommit)
    try:
        if writes:
            require_writable(connection)
        require_migrated(connection)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def connected(shards: Sequence[Shard], *, writes: bool = False) -> Iterator[Connections]:
    """A connection to each, in autocommit mode. Raises UserError, before anything is done, if one is down or unfit."""
    with ExitStack() as stack:
        try:
            opened = on_each(
                {shard.name: shard for shard in shards},
                lambda _, shard: stack.enter_context(connect(shard, writes=writes)),
            )
        except UserError as error:
            raise UserError(f"nothing was done: {error.message}", error.hint or LEAVE_OUT) from error
        places: dict[tuple[Any, ...], str] = {}
        for name, connection in opened.items():
            info = connection.info
            other = places.setdefault((info.host, info.port, info.dbname), name)
            if other != name:
                raise UserError(f"{other} and {name} are the same database", "give each shard its own URL")
        yield opened


def on_each(places: Mapping[str, Place], work: Callable[[str, Place], Answer]) -> dict[str, Answer]:
    """The results of ``work`` on each shard, in parallel.

    Raises one UserError that names each failed shard, or GateFailed if all failures are of gates.
    """
    answers, failures = ask_each(places, work)
    if failures:
        raise failed(failures)
    return answers


def ask_each(
    places: Mapping[str, Place], work: Callable[[str, Place], Answer]
) -> tuple[dict[str, Answer], dict[str, Failure]]:
    """As :func:`on_each`, but it returns the failures beside the results.

    If it is interrupted, the queries that run on the connections among ``places`` are cancelled.
    """

    def ask(name: str, place: Place) -> Answer:
        with answering(place) if isinstance(place, psycopg.Connection) else nullcontext():
            return work(name, place)

    with ThreadPoolExecutor(max(len(places), 1)) as pool:
        running = {name: pool.submit(ask, name, place) for name, place in places.items()}
        try:
            wait(running.values())
        except BaseException:
            # Only the main thread is interrupted. A cancellation between two queries has no effect.
            while wait(running.values(), timeout=0.5).not_done:
                for place in places.values():
                    if isinstance(place, psycopg.Connection):
                        with suppress(psycopg.Error):
                            place.cancel_safe(timeout=5)
            raise
    answers: dict[str, Answer] = {}
    failures: dict[str, Failure] = {}
    for name, run in running.items():
        error = run.exception()
        if error is None:
            answers[name] = run.result()
        elif isinstance(error, UserError | psycopg.Error):
            failures[name] = error
        else:
            raise error
    return answers, failures


@contextmanager
def answering(connection: Connection) -> Iterator[None]:
    """Breaks ``connection`` off if, within the block, its server falls silent; raises psycopg.OperationalError then.

    Keepalives do not notice a server that is frozen, since its kernel answers them. Nor does a query that lasts say
    anything. So the server is silent if it does not take another connection within :data:`SILENT_SECONDS`. Only a
    direct one is watched: a pooler that is paused, or whose pool is full, lets new clients wait while queries run.
    """
    over, silent = Event(), Event()

    def watch() -> None:
        while not over.wait(LOOK_SECONDS):
            try:
                another(connection, settle=False, connect_timeout=SILENT_SECONDS).close()
            except psycopg.errors.ConnectionTimeout:
                silent.set()
                with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
                    line.shutdown(socket.SHUT_RDWR)
                return
            except (UserError, psycopg.Error):
                pass  # a refusal is an answer, too

    watching = Thread(target=watch)
    watching.start()
    try:
        if is_pooled(connection):
            over.set()
        yield
    except psycopg.OperationalError as error:
        if silent.is_set():
            said = f"it does not answer, and takes no connection within {SILENT_SECONDS} s"
            raise psycopg.OperationalError(said) from error
        raise
    finally:
        over.set()
        watching.join()


def failed(failures: Mapping[str, Failure], hint: str | None = None) -> UserError:
    """One error that names each shard that failed."""
    said = "; ".join(f"{name}: {why(error)}" for name, error in failures.items())
    hint = next((error.hint for error in failures.values() if isinstance(error, UserError) and error.hint), hint)
    refused = all(isinstance(error, GateFailed) for error in failures.values())
    return (GateFailed if refused else UserError)(said, hint)


def why(error: BaseException) -> str:
    """The error in one line."""
    said = error.message if isinstance(error, UserError) else str(error)
    return " ".join(said.split()) or type(error).__name__


def serving(connection: Connection) -> str | None:
    """The version that a shard serves."""
    version = one(connection, "select two_tower.active_version()")
    return None if version is None else str(version)


def last_served(connection: Connection) -> dict[str, str]:
    """By shard: when it was asked last, and which version it served then."""
    found = connection.execute(
        """select name, to_char(asked_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'), model_version
        from two_tower.shards where asked_at is not null"""
    )
    return {
        name: f"when it was asked last, at {at}, it served {version or 'no version'}" for name, at, version in found
    }


def is_down(name: str, known: Mapping[str, str]) -> str:
    """A shard is down; ``known`` is as :func:`last_served` of another returns it."""
    if name not in known:
        return f"{name} is down, and was never asked which version it serves"
    return f"{name} is down; {known[name]}"


# ------------------------------------------------------------------------------------------------ replication


def lacking(connection: Connection) -> list[str]:
    """Tables of the first shard that no subscription brings to this one, or that are not copied yet."""
    return column(
        connection,
        """select p.name from unnest(%s::text[]) as p (name) where not exists (
            select from pg_catalog.pg_subscription_rel r
            join pg_catalog.pg_subscription s on s.oid = r.srsubid
            join pg_catalog.pg_database d on d.oid = s.subdbid
            where d.datname = current_database() and r.srrelid = to_regclass(p.name) and r.srsubstate in ('r', 's')
        )""",
        ([*CATALOGUE, *MODELS],),
    )


def slots(connection: Connection) -> list[str]:
    """The slots on the first shard that this one's subscriptions read."""
    return column(
        connection,
        """select s.subslotname::text from pg_catalog.pg_subscription s
        join pg_catalog.pg_database d on d.oid = s.subdbid
        where d.datname = current_database() and s.subslotname is not null""",
    )


def bytes_behind(connection: Connection) -> dict[str, int]:
    """By slot on this shard: how much of its WAL has not been confirmed."""
    found = connection.execute(
        """select r.slot_name::text, case when not pg_catalog.pg_is_in_recovery() then
            pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), r.confirmed_flush_lsn)::bigint
        end
        from pg_catalog.pg_replication_slots r where r.database = current_database()"""
    )
    return {slot: count for slot, count in found if count is not None}
