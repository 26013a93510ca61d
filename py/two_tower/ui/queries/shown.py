"""What was shown to users, what came of it, and the experiment on users."""

from __future__ import annotations

from two_tower.server import experiments
from two_tower.ui.queries.viewer import Connection, Row, row, rows


def impressions_by_day(connection: Connection, days: int) -> list[Row]:
    """``day`` (UTC), ``model_version``, ``shown`` videos and the ``users`` who saw them, of the last ``days``."""
    return rows(
        connection,
        """select (i.shown_at at time zone 'UTC')::date as day,
            coalesce(i.model_version, 'no version') as model_version, count(*) as shown,
            count(distinct i.user_id) as users
        from two_tower.impressions i where i.shown_at > now() - %s * interval '1 day'
        group by 1, 2 order by 1, 2""",
        days,
    )


def rates(connection: Connection, days: int) -> list[Row]:
    """The rows of ``two_tower.shown_rates()``: what was shown and liked, by version and reason."""
    return rows(connection, "select * from two_tower.shown_rates(%s)", days)


def experiment(connection: Connection) -> Row | None:
    """The latest experiment on users, as :func:`two_tower.server.experiments.report` has it."""
    return experiments.report(connection)


def comparable(connection: Connection) -> Row:
    """``active``, the version that serves, and ``others`` that could be compared with it."""
    return row(
        connection,
        """select two_tower.active_version() as active, array(
            select m.version from two_tower.model_versions m
            where m.state in ('staged', 'standby') and m.attached_at is not null order by m.number desc
        ) as others""",
    )
