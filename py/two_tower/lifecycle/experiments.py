"""Experiments on users: two versions side by side, each for its share of them.

:mod:`two_tower.server.experiments` reads the results.
"""

from __future__ import annotations

from typing import Any

import psycopg

from two_tower.lifecycle import registry
from two_tower.progress import Progress
from two_tower.rows import one

Connection = psycopg.Connection[Any]


def start(
    connection: Connection,
    control: str,
    challenger: str,
    share: float,
    progress: Progress,
    *,
    force: bool = False,
    workers: int = 1,
    overrides: dict[str, float] | None = None,
    publish: str | None = None,
) -> dict[str, Any]:
    """Serve ``share`` of the users by ``challenger`` and the others by ``control``, which is the active version.

    Missing vectors of the challenger are computed first. Raises GateFailed if its gate says no; ``force`` overrules
    that, and is recorded; ``overrides`` are gate settings for this call. Both are first uploaded to ``publish``, if
    given, for clients that compute vectors themselves. ``connection`` is in autocommit mode.
    """
    connection.execute("select two_tower.require_no_experiment()")
    connection.execute("select two_tower.require_model(%s), two_tower.require_model(%s)", (control, challenger))
    registry.refresh(connection, progress)
    registry.backfill(connection, challenger, progress, workers=workers, force=force, overrides=overrides)
    registry.refresh(connection, progress)
    measured = registry.replayed(connection, challenger, overrides)
    if publish is not None:
        from two_tower.lifecycle import artifacts

        for version in (control, challenger):
            artifacts.upload(connection, version, publish, progress)
    with registry.asking_the_gate():
        started: dict[str, Any] = one(
            connection,
            "select two_tower.start_experiment(%s, %s, %s, %s, %s, %s)",
            (control, challenger, share, force, *registry.evidence(measured, overrides)),
        )
    return started


def stop(connection: Connection, winner: str | None = None) -> dict[str, Any]:
    """End the experiment; ``winner`` serves everybody from now on. Durable when this returns."""
    stopped: dict[str, Any] = one(connection, "select two_tower.stop_experiment(%s)", (winner,))
    connection.execute("select two_tower.make_durable()")
    return stopped
