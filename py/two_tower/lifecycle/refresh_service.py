"""``two-tower refresh --every``: refreshes and jobs by a small service, for hosts without pg_cron.

    two-tower refresh --every 10          until SIGTERM or SIGINT, a line for each round that did something

The database decides what is due and who does it, so several of these may run side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from two_tower.database import open_connection, require_migrated
from two_tower.errors import UserError
from two_tower.lifecycle import registry
from two_tower.lifecycle.registry import Refreshed
from two_tower.signals import until_signalled

LONGEST_PAUSE = 60.0
"""The longest wait in seconds after repeated failures. Waits begin with one second, and double."""


def serve(dsn: str, every: float, tell: Callable[[Refreshed], None], complain: Callable[[str], None]) -> None:
    """Refresh, run the jobs that are due, sleep ``every`` seconds; again, until SIGTERM or SIGINT.

    It ends after the current transaction; a second signal ends it at once. ``tell`` is called for each round that did
    something, ``complain`` for each that failed, after which it reconnects. No error of the database ends it.
    """
    connection: psycopg.Connection[Any] | None = None
    failures = 0
    with until_signalled() as stop:
        while not stop.is_set():
            try:
                if connection is None:
                    # A request may be all that is sent for long, and keepalives do not watch one that nobody has
                    # acknowledged.
                    connection = open_connection(
                        dsn, autocommit=True, application_name="two-tower refresh", tcp_user_timeout=60_000
                    )
                    require_migrated(connection)
                done = registry.refresh(connection, lambda what, share: None, all_jobs=True, stopped=stop.is_set)
            except (psycopg.Error, UserError) as error:
                if connection is not None:
                    connection.close()
                connection = None
                pause = min(LONGEST_PAUSE, 2.0**failures)
                failures += 1
                complain(f"{str(error).strip()}; trying again in {pause:.0f} s")
            else:
                pause, failures = every, 0
                if any(done.counts.values()) or done.jobs:
                    tell(done)
            stop.wait(pause)
    if connection is not None:
        connection.close()
