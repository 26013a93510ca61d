"""Copies the rows that the towers need from another PostgreSQL, such as a Supabase, and keeps the copy up to date.

The source is read in one read-only transaction, hence one snapshot, without prepared statements or anything else that
outlives the transaction, so a transaction pooler suffices. Rows are assigned to buckets by a hash of their
key. Both sides count and hash the rows of every bucket; only buckets that differ are copied, in binary, into temporary
tables, and merged: missing rows are deleted, equal rows are not written. No column has to say when a
row changed, and a deletion needs no tombstone.

With a key, user ids become HMACs of themselves on the way. A bucket is then one user, since the two sides have
different ids: every run transfers the id and the hash of every user, but only the rows that differ.
Such ids are pseudonyms: without the key nobody can tell whose they are, but what somebody liked, and when, stays.
"""

from __future__ import annotations

import time

import psycopg

from two_tower.data.pull.run import Connection, Run
from two_tower.data.pull.summary import PullSummary, TableSummary
from two_tower.data.pull.tables import TABLES
from two_tower.database import open_connection, settled_transaction
from two_tower.errors import UserError
from two_tower.progress import Progress, Say

__all__ = ["TABLES", "PullSummary", "TableSummary", "pull"]


def pull(
    target: Connection,
    source_dsn: str,
    *,
    key: bytes | None = None,
    replace: bool = False,
    dry_run: bool = False,
    say: Say = lambda _: None,
    progress: Progress = lambda _what, _share: None,
) -> PullSummary:
    """Makes the tables of ``target`` equal to those at ``source_dsn``, in one transaction.

    ``key`` turns user ids into pseudonyms. Rows of ``target`` that the source lacks are deleted only if the last pull
    came from the same source with the same key, or with ``replace``. Raises UserError, with nothing changed, if the
    source cannot be read in full, or rows would be deleted that did not come from it.
    """
    started = time.monotonic()
    with _open(source_dsn, say) as source:
        info = source.info
        summary = PullSummary(
            f"{info.user}@{info.host}:{info.port}/{info.dbname}", anonymised=key is not None, dry_run=dry_run
        )
        try:
            # A row's text must be the same on both sides, and no time limit of the role may end a long copy.
            with settled_transaction(source), settled_transaction(target, force_rollback=dry_run):
                Run(source, target, key, summary, say, progress).run(replace)
        except psycopg.errors.InsufficientPrivilege as error:
            raise UserError(
                f"not everything can be read or written: {error.diag.message_primary}",
                "at the source, use a role that sees all rows: the tables' owner, or one with BYPASSRLS",
            ) from error
        except psycopg.OperationalError as error:
            if not source.closed and not target.closed:
                raise
            which = "source" if source.closed else "target"
            raise UserError(
                f"the connection to the {which} was lost, and nothing has changed: {str(error).strip()}",
                "run this again",
            ) from error
    summary.seconds = round(time.monotonic() - started, 3)
    return summary


def _open(dsn: str, say: Say) -> Connection:
    try:
        source = open_connection(dsn, autocommit=True, settle=False, application_name="two-tower pull")
    except psycopg.OperationalError as error:
        raise UserError(
            f"cannot connect to the source: {str(error).strip()}",
            "to verify its certificate: sslmode=verify-full&sslrootcert=FILE in the connection string",
        ) from error
    except psycopg.ProgrammingError:
        # The message repeats the string, which may contain a password.
        raise UserError("--from is not a connection string", "postgresql://user:password@host:5432/database") from None
    source.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    source.read_only = True
    remote = source.info.hostaddr not in ("", "127.0.0.1", "::1")
    if remote and source.info.get_parameters().get("sslmode") not in ("verify-ca", "verify-full"):
        say("the source's certificate is not verified: add sslmode=verify-full&sslrootcert=FILE to the string")
    return source
