"""Versions, their changes of state, and the limits of the gate."""

from __future__ import annotations

from two_tower.ui.queries.viewer import Connection, Row, rows


def models(connection: Connection, limit: int = 50) -> list[Row]:
    """The latest versions, newest first: ``state``, ``metrics`` without parity sample, ``meta``, sizes and times."""
    return rows(
        connection,
        """select m.version, m.state, m.forced, m.registered_at, m.backfilled_at, m.activated_at,
            m.user_dim, m.item_dim, d.metrics - 'parity' as metrics, d.meta
        from two_tower.model_versions m join two_tower.model_documents d on d.model_version = m.version
        order by m.number desc limit %s""",
        limit,
    )


def events(connection: Connection, limit: int = 100) -> list[Row]:
    """The latest changes of state, latest first, with the findings of the gate (``report``) if it was checked."""
    return rows(
        connection,
        """select at, model_version, from_state, to_state, forced, role, report
        from two_tower.model_events order by id desc limit %s""",
        limit,
    )


def thresholds(connection: Connection) -> list[Row]:
    """``name``, ``value`` and ``description`` of the gate's limits."""
    return rows(
        connection,
        "select name, value, description from two_tower.settings where name like 'gate\\_%' order by name",
    )
