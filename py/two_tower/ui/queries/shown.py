"""What was shown to users, how they decided on it, and the experiment on users."""

from __future__ import annotations

from uuid import UUID

from two_tower.server import experiments
from two_tower.ui.queries.viewer import Connection, Row, row, rows, write_down


def impressions_by_day(connection: Connection, days: int) -> list[Row]:
    """``day`` (UTC), ``model_version``, ``shown`` videos and the ``users`` who saw them, for the last ``days``."""
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


def rates_by_day(connection: Connection, days: int) -> list[Row]:
    """``day`` (UTC) on which videos were first ``shown`` to a user, ``model_version``, and their ``like_rate`` and
    ``nope_rate``, whenever the user decided."""
    return rows(
        connection,
        """select (o.shown_at at time zone 'UTC')::date as day,
            coalesce(o.model_version, 'no version') as model_version, count(*) as shown,
            (count(*) filter (where o.label = 1))::float8 / count(*) as like_rate,
            (count(*) filter (where o.label = 0))::float8 / count(*) as nope_rate
        from two_tower.shown_outcomes(now() - %s * interval '1 day') o
        group by 1, 2 order by 1, 2""",
        days,
    )


def popular_by_day(connection: Connection, days: int) -> list[Row]:
    """``day`` (UTC), ``model_version``, and the ``share`` of shown videos that are among the most liked tenth of the
    published ones; ``liked``, the share of this tenth in all likes."""
    return rows(
        connection,
        """with ranked as materialized (
            select v.id, coalesce(p.likers, 0) as likers,
                ntile(10) over (order by coalesce(p.likers, 0) desc, v.id) = 1 as is_popular
            from public.videos v left join two_tower.video_popularity p on p.video_id = v.id
            where v.published_at <= now()
        ),
        liked as materialized (
            select coalesce(sum(likers) filter (where is_popular)::float8 / nullif(sum(likers), 0), 0) as share
            from ranked
        )
        select (i.shown_at at time zone 'UTC')::date as day, coalesce(i.model_version, 'no version') as model_version,
            (count(*) filter (where r.is_popular))::float8 / count(*) as share, l.share as liked
        from two_tower.impressions i join ranked r on r.id = i.video_id cross join liked l
        where i.shown_at > now() - %s * interval '1 day'
        group by 1, 2, l.share order by 1, 2""",
        days,
    )


def experiment(connection: Connection) -> Row | None:
    """The latest experiment on users, as :func:`two_tower.server.experiments.report` has it."""
    found = experiments.report(connection)
    if found:
        for routine in ("experiment_days", "experiment_tests", "experiment_coverage"):
            write_down(f"select * from two_tower.{routine}({found['id']});")
    return found


def started(connection: Connection) -> Row:
    """How many ``days`` ago the latest experiment started, rounded up; 0 without one."""
    return row(
        connection,
        """select coalesce(max(ceil(extract(epoch from now() - e.started_at) / 86400)), 0)::int as days
        from (select started_at from two_tower.experiments order by id desc limit 1) as e""",
    )


def comparable(connection: Connection) -> Row:
    """``active``, the serving version, and ``others`` that could be compared with it."""
    return row(
        connection,
        """select two_tower.active_version() as active, array(
            select m.version from two_tower.model_versions m
            where m.state in ('staged', 'standby') and m.attached_at is not null order by m.number desc
        ) as others""",
    )


# ------------------------------------------------------------------------------------------------- promotions


def promotions(connection: Connection, limit: int = 200) -> list[Row]:
    """Promotions, the current ones first: the columns of ``two_tower.promotions``, the ``title`` of a single promoted
    video, and the ``state``: current, planned or ended."""
    return rows(
        connection,
        """select p.id, p.kind, p.video_id, v.title, p.videos, p.segment, p.strength, p.rank, p.starts_at, p.ends_at,
            p.note, s.state
        from two_tower.promotions p
        left join public.videos v on v.id = p.video_id
        cross join lateral (
            select case when p.ends_at <= now() then 'ended' when p.starts_at > now() then 'planned' else 'current' end
        ) as s (state)
        order by array_position(array['current', 'planned', 'ended'], s.state), p.starts_at desc, p.id desc
        limit %s""",
        limit,
    )


def video_named(connection: Connection, name: str) -> Row | None:
    """``id`` and ``title`` of the video with this id or product address."""
    name = name.strip()
    try:
        video = UUID(name)
    except ValueError:
        video = None
    found = rows(
        connection,
        """select id, title from public.videos where id = %(video)s::uuid or product_url = %(name)s
        order by id limit 1""",
        video=video,
        name=name,
    )
    return found[0] if found else None
