"""Refreshes and other jobs, and problems."""

from __future__ import annotations

from two_tower.ui.queries.sizes import decisions, features
from two_tower.ui.queries.viewer import Connection, Row, row, rows


def status(connection: Connection) -> Row:
    """The row of ``two_tower.status``. If there are many decisions, users with likes, and those of them with a vector,
    are counted on a sample of the features, and other columns that would read every row are left out."""
    if decisions(connection).factor == 1:
        return row(connection, "select * from two_tower.status")
    users = features(connection)
    return row(
        connection,
        f"""with pending as materialized (
            select
                (select count(*) from two_tower.pending_users) as users,
                (select count(*) from two_tower.video_changes) as videos,
                now() - least(
                    (select min(logged_at) from two_tower.pending_users),
                    (select min(logged_at) from two_tower.video_changes)
                ) as lag
        ),
        serving as materialized (select two_tower.active_version() as version),
        liking as (
            select {users.counted} as users, {users.scaled("count(e.found)")}::bigint as vectors
            from {users.called("f")} cross join serving s
            left join lateral (
                select true as found from two_tower.user_embeddings e
                where e.user_id = f.user_id and e.model_version = s.version limit 1
            ) as e on true
            where f.like_count > 0
        )
        select s.version as active_version, p.users as pending_user_changes, p.videos as pending_video_changes, p.lag,
            (select count(*) from two_tower.change_failures) as failed_changes,
            (select count(*) from public.videos) as videos,
            (select count(*) from two_tower.video_embeddings e where e.model_version = s.version) as video_vectors,
            l.users as users_with_likes, l.vectors as user_vectors,
            (
                select max(r.finished_at) from two_tower.job_runs r where r.job = 'refresh' and r.error is null
            ) as last_refresh
        from pending p cross join serving s cross join liking l""",
    )


def jobs(connection: Connection) -> list[Row]:
    """The rows of ``two_tower.jobs``: each job, whether it is scheduled and failing, its last success and error."""
    return rows(connection, "select * from two_tower.jobs order by failing desc, last_success desc nulls last, job")


def runs(connection: Connection, limit: int = 50) -> list[Row]:
    """The latest runs of all jobs, including imports: ``job``, times, ``result``, ``error``."""
    return rows(
        connection,
        "select job, started_at, finished_at, result, error from two_tower.job_log order by id desc limit %s",
        limit,
    )


def throughput(connection: Connection, hours: int) -> list[Row]:
    """Refreshes in 60 equal intervals of the last ``hours``: ``at``, ``until``, ``users`` and ``videos`` processed,
    ``vectors`` written, ``failed`` ones, ``seconds`` that refreshes took, and the longest ``lag`` that one of them
    found, in seconds; ``since`` and ``now``, the bounds of the whole time."""
    return rows(
        connection,
        """select b.at, b.at + make_interval(secs => %(hours)s * 60) as until,
            coalesce(sum((r.result ->> 'users')::bigint), 0)::bigint as users,
            coalesce(sum((r.result ->> 'videos')::bigint), 0)::bigint as videos,
            coalesce(sum((r.result ->> 'vectors')::bigint), 0)::bigint as vectors,
            coalesce(sum((r.result ->> 'failed')::bigint), 0)::bigint as failed,
            coalesce(sum(extract(epoch from r.finished_at - r.started_at)), 0)::float8 as seconds,
            max((r.result ->> 'lag_seconds')::float8) as lag,
            now() - make_interval(hours => %(hours)s) as since, now() as now
        from two_tower.job_log r
        cross join lateral date_bin(
            make_interval(secs => %(hours)s * 60), r.started_at, timestamptz '2000-01-01'
        ) as b (at)
        where r.job = 'refresh' and r.started_at > now() - make_interval(hours => %(hours)s)
        group by 1 order by 1""",
        hours=hours,
    )


def failures(connection: Connection, limit: int = 100) -> list[Row]:
    """Users and videos that are set aside, the latest first."""
    return rows(
        connection,
        """select kind, id, sqlstate, error, attempts, failed_at, retry_at
        from two_tower.failed_changes order by failed_at desc limit %s""",
        limit,
    )


def problems(connection: Connection) -> list[Row]:
    """The rows of ``two_tower.problems``: ``what`` is broken, in ``detail``, and its ``remedy``."""
    return rows(connection, "select * from two_tower.problems")
