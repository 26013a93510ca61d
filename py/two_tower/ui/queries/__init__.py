"""The queries of the page, as the role ``two_tower_viewer`` in read-only transactions.

The database aggregates and limits every answer. Functions take the connection of :func:`viewer`, and return plain rows
(dicts), which Streamlit can cache.
"""

from __future__ import annotations

from two_tower.ui.queries.data import KINDS, LACKS, attribute, decisions_by_month, lacking, missing, spread, totals
from two_tower.ui.queries.freshness import failures, jobs, problems, runs, status, throughput
from two_tower.ui.queries.models import events, models, thresholds
from two_tower.ui.queries.recommendations import BANDS, against_data, by_popularity, reach, reached, sample
from two_tower.ui.queries.shown import (
    comparable,
    experiment,
    impressions_by_day,
    popular_by_day,
    promotions,
    rates,
    rates_by_day,
    started,
    video_named,
)
from two_tower.ui.queries.sizes import sampled, shown_days
from two_tower.ui.queries.users import contributions, find_users, history, random_user, recommendations, taste
from two_tower.ui.queries.viewer import ROLE, Connection, Row, Viewers, row, rows, viewer, written_down

__all__ = [
    "BANDS",
    "KINDS",
    "LACKS",
    "ROLE",
    "Connection",
    "Row",
    "Viewers",
    "against_data",
    "attribute",
    "by_popularity",
    "comparable",
    "contributions",
    "decisions_by_month",
    "events",
    "experiment",
    "failures",
    "find_users",
    "history",
    "impressions_by_day",
    "jobs",
    "lacking",
    "missing",
    "models",
    "popular_by_day",
    "problems",
    "promotions",
    "random_user",
    "rates",
    "rates_by_day",
    "reach",
    "reached",
    "recommendations",
    "runs",
    "sample",
    "sampled",
    "shown_days",
    "situation",
    "spread",
    "started",
    "status",
    "taste",
    "thresholds",
    "throughput",
    "totals",
    "versions",
    "video_named",
    "viewer",
    "written_down",
]


def situation(connection: Connection) -> Row:
    """``active_version``, and whether there are ``videos``, ``decisions``, ``models`` and ``vectors`` of users."""
    return row(
        connection,
        """select two_tower.active_version() as active_version,
            exists (select from public.videos) as videos,
            exists (select from public.user_video_decisions) as decisions,
            exists (select from two_tower.model_versions) as models,
            exists (select from two_tower.user_embeddings) as vectors""",
    )


def versions(connection: Connection) -> list[Row]:
    """``version`` and ``state`` of those that have vectors: the active one first, then the newest."""
    return rows(
        connection,
        """select version, state from two_tower.model_versions
        where state in ('active', 'standby', 'staged') and attached_at is not null
        order by state = 'active' desc, number desc""",
    )
