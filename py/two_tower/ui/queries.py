"""What the page shows, asked for as the role ``two_tower_viewer`` in transactions that can write nothing.

Every question is aggregated and limited by the database. Functions take the connection of :func:`viewer`, and answer
with plain rows (dicts), which Streamlit can cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import DictRow, dict_row

from two_tower.database import open_connection, require_migrated
from two_tower.errors import UserError
from two_tower.ids import user_uuid

Connection = psycopg.Connection[DictRow]
Row = dict[str, Any]

ROLE = "two_tower_viewer"
KINDS = ("tag", "performer", "maker", "label", "series", "source")
"""Attributes of videos whose distribution is shown."""
BANDS = 10
"""Groups of equally many videos, by popularity."""


@contextmanager
def viewer(dsn: str) -> Iterator[Connection]:
    """A connection that reads what the viewer's role may, or the login where the role is bound by policies; it writes
    nothing.

    Raises UserError where the database is not migrated or the login may not take the role, psycopg.OperationalError
    where there is no connection.
    """
    with open_connection(
        dsn, autocommit=True, row_factory=dict_row, application_name="two-tower ui", connect_timeout=10
    ) as connection:
        if one(connection, "select pg_catalog.to_regrole(%s) is null", ROLE):
            raise UserError(f"database {connection.info.dbname} is not migrated", "two-tower migrate")
        require_migrated(connection, ROLE)
        # Where whoever migrated could not let the role see all rows, the login reads for it.
        if one(connection, "select rolbypassrls from pg_catalog.pg_roles where rolname = %s", ROLE):
            try:
                connection.execute(f"set role {ROLE}")
            except psycopg.errors.InsufficientPrivilege as error:
                login = connection.info.user
                hint = f'As an administrator of the database run: grant {ROLE} to "{login}";'
                raise UserError(f"{login} may not take the role {ROLE}, which this page reads as", hint) from error
        connection.execute("set default_transaction_read_only = on; set statement_timeout = '30s'")
        yield connection


def rows(connection: Connection, query: LiteralString, *values: Any, **named: Any) -> list[Row]:
    """Every row."""
    return connection.execute(query, named or values or None).fetchall()


def row(connection: Connection, query: LiteralString, *values: Any, **named: Any) -> Row:
    """The only row."""
    found = connection.execute(query, named or values or None).fetchone()
    assert found is not None
    return found


def one(connection: Connection, query: LiteralString, *values: Any) -> Any:
    """The only column of the only row."""
    return next(iter(row(connection, query, *values).values()))


# ------------------------------------------------------------------------------------------------- what there is


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


# ------------------------------------------------------------------------------------------------- users

_COUNTED: LiteralString = """
select f.user_id, d.likes, d.nopes, d.skips
from (select distinct u.user_id from found u limit %(limit)s) as f
cross join lateral (
    select count(*) filter (where decision_type::text = 'like') as likes,
        count(*) filter (where decision_type::text = 'nope') as nopes,
        count(*) filter (where decision_type::text = 'skip') as skips
    from public.user_video_decisions where user_id = f.user_id
) as d
order by d.likes desc, f.user_id
"""


def find_users(connection: Connection, text: str = "", limit: int = 50) -> list[Row]:
    """``user_id``, ``likes``, ``nopes``, ``skips`` of users who fit, most likes first.

    ``text`` is an id, the beginning of one, or an id of the application's that an import made a UUID of. Without it,
    those with the most likes. A whole id is found even where nothing is known of it.
    """
    text = text.strip()
    digits = text.replace("-", "").lower()
    if not text:
        return rows(
            connection,
            f"""with found as (
                (select user_id from two_tower.user_features order by like_count desc, user_id limit %(limit)s)
                union all
                -- Before the first refresh nobody has features.
                (select distinct user_id from public.user_video_decisions
                where not exists (select from two_tower.user_features) order by user_id limit %(limit)s)
            ) {_COUNTED}""",
            limit=limit,
        )
    if re.fullmatch("[0-9a-f]{1,31}", digits):
        span = {"low": UUID(digits.ljust(32, "0")), "high": UUID(digits.ljust(32, "f")), "limit": limit}
        known = rows(
            connection,
            f"""with found as (
                (select distinct user_id from public.user_video_decisions
                where user_id between %(low)s and %(high)s order by user_id limit %(limit)s)
                union all
                (select user_id from two_tower.accounts() where user_id between %(low)s and %(high)s
                order by user_id limit %(limit)s)
            ) {_COUNTED}""",
            **span,
        )
        if known:
            return known
    whole = UUID(digits) if re.fullmatch("[0-9a-f]{32}", digits) else user_uuid(text)
    found = rows(connection, f"with found as (select %(user)s::uuid as user_id) {_COUNTED}", user=whole, limit=1)
    if whole == user_uuid(text) and not re.fullmatch("[0-9a-f]{32}", digits):
        found = [user for user in found if user["likes"] + user["nopes"] + user["skips"]]
    return found


def random_user(connection: Connection) -> UUID | None:
    """Somebody with features, where there is anybody."""
    found = connection.execute(
        """(select user_id from two_tower.user_features where user_id >= gen_random_uuid() order by user_id limit 1)
        union all (select user_id from two_tower.user_features order by user_id limit 1) limit 1"""
    ).fetchone()
    return found["user_id"] if found else None


def taste(connection: Connection, user: UUID, limit: int = 12) -> Row:
    """Counts and times of a user's decisions, ``tags`` liked most (name, likes), whether a change is ``pending``."""
    return row(
        connection,
        """select count(*) filter (where decision_type::text = 'like') as likes,
            count(*) filter (where decision_type::text = 'nope') as nopes,
            count(*) filter (where decision_type::text = 'skip') as skips,
            min(two_tower.time_of(created_at)) as first_at, max(two_tower.time_of(created_at)) as last_at,
            exists (select from two_tower.pending_users where user_id = %(user)s) as pending,
            array(
                select e.model_version from two_tower.user_embeddings e where e.user_id = %(user)s order by 1
            ) as versions,
            (
                select coalesce(jsonb_agg(jsonb_build_object('name', t.name, 'likes', t.likes)), '[]')
                from (
                    select g.name, count(*) as likes
                    from public.user_video_decisions l
                    join public.video_tags t on t.video_id = l.video_id
                    join public.tags g on g.id = t.tag_id
                    where l.user_id = %(user)s and l.decision_type::text = 'like'
                    group by g.name order by likes desc, g.name limit %(limit)s
                ) as t
            ) as tags
        from public.user_video_decisions where user_id = %(user)s""",
        user=user,
        limit=limit,
    )


_CARD: LiteralString = """v.title, v.thumbnail_url, v.product_url, v.maker,
array(
    select g.name from public.video_tags t join public.tags g on g.id = t.tag_id
    where t.video_id = v.id order by g.name limit 8
) as tags,
array(
    select p.name from public.video_performers t join public.performers p on p.id = t.performer_id
    where t.video_id = v.id order by p.name limit 4
) as performers"""


def history(connection: Connection, user: UUID, decisions: tuple[str, ...], limit: int = 20) -> list[Row]:
    """Videos that a user decided on, latest first: ``video_id``, ``decision``, ``created_at``, what a card shows."""
    return rows(
        connection,
        f"""select h.video_id, h.decision, h.created_at, {_CARD}
        from (
            select video_id, decision_type as decision, two_tower.time_of(created_at) as created_at
            from public.user_video_decisions
            where user_id = %(user)s and decision_type::text = any (%(decisions)s)
            order by created_at desc, video_id limit %(limit)s
        ) as h
        join public.videos v on v.id = h.video_id
        order by h.created_at desc, h.video_id""",
        user=user,
        decisions=list(decisions),
        limit=limit,
    )


def recommendations(connection: Connection, user: UUID, version: str | None, limit: int, known: bool) -> list[Row]:
    """What a version recommends to a user, best first: ``rank``, ``video_id``, ``score``, ``reason``, the user's own
    ``decision`` on it, and what a card shows. With ``known``, also what the user has decided on."""
    return rows(
        connection,
        f"""select r.rank, r.video_id, r.score, r.reason, r.decision, {_CARD}
        from two_tower.preview_recommendations(array[%(user)s]::uuid[], %(version)s, %(limit)s, %(known)s) r
        join public.videos v on v.id = r.video_id
        order by r.rank""",
        user=user,
        version=version,
        limit=limit,
        known=known,
    )


# ------------------------------------------------------------------------------------------------- data


def totals(connection: Connection) -> Row:
    """How many ``videos``, ``published`` ones, ``users`` who decided, ``likes``, ``nopes`` and ``skips`` there are."""
    return row(
        connection,
        """select v.videos, v.published, d.users, d.likes, d.nopes, d.skips
        from (
            select count(*) as videos, count(*) filter (where published_at <= now()) as published from public.videos
        ) as v
        cross join (
            select count(*) as users, coalesce(sum(likes), 0)::bigint as likes,
                coalesce(sum(nopes), 0)::bigint as nopes, coalesce(sum(skips), 0)::bigint as skips
            from (
                select count(*) filter (where decision_type::text = 'like') as likes,
                    count(*) filter (where decision_type::text = 'nope') as nopes,
                    count(*) filter (where decision_type::text = 'skip') as skips
                from public.user_video_decisions group by user_id
            ) as u
        ) as d""",
    )


_LIKED: LiteralString = """
liked as (
    select video_id, count(*) as likes from public.user_video_decisions
    where decision_type::text = 'like' group by video_id
)
"""

# (video_id, value) of each kind of attribute. A text that is empty is none.
_VALUES: dict[str, LiteralString] = {
    "tag": "select t.video_id, g.name as value from public.video_tags t join public.tags g on g.id = t.tag_id",
    "performer": """select t.video_id, p.name as value
        from public.video_performers t join public.performers p on p.id = t.performer_id""",
    "maker": "select id as video_id, maker as value from public.videos where maker <> ''",
    "label": "select id as video_id, label as value from public.videos where label <> ''",
    "series": "select id as video_id, series as value from public.videos where series <> ''",
    "source": "select id as video_id, source as value from public.videos where source <> ''",
}


def attribute(connection: Connection, kind: str, limit: int = 25) -> list[Row]:
    """The values of an attribute that the most likes have: ``value``, ``items`` and ``likes`` that carry it, and the
    shares of all items and of all likes that those are. ``values`` says how many values there are altogether."""
    return rows(
        connection,
        f"""with {_LIKED},
        carried as (
            select c.value, count(*) as items, coalesce(sum(l.likes), 0)::bigint as likes
            from ({_VALUES[kind]}) as c left join liked l on l.video_id = c.video_id
            group by c.value
        )
        select c.value, c.items, c.likes, c.items::float8 / (select count(*) from public.videos) as item_share,
            coalesce(c.likes::float8 / nullif((select sum(likes) from liked), 0), 0)::float8 as like_share,
            count(*) over () as values
        from carried c order by c.likes desc, c.items desc, c.value limit %(limit)s""",
        limit=limit,
    )


# What a video may lack, as a condition on v and on its row of liked, l.
LACKS: dict[str, LiteralString] = {
    "tags": "not exists (select from public.video_tags t where t.video_id = v.id)",
    "performers": "not exists (select from public.video_performers t where t.video_id = v.id)",
    "maker": "coalesce(v.maker, '') = ''",
    "label": "coalesce(v.label, '') = ''",
    "series": "coalesce(v.series, '') = ''",
    "source": "coalesce(v.source, '') = ''",
    "price": "v.price is null",
    "picture": "coalesce(v.thumbnail_url, '') = ''",
    "publication": "(v.published_at <= now()) is not true",
    "any like": "l.likes is null",
}


def missing(connection: Connection) -> list[Row]:
    """Who lacks what: ``what``, how many ``items`` lack it and how many ``likes`` those have, and the shares."""
    flags = ", ".join(f"{condition} as lacks_{at}" for at, condition in enumerate(LACKS.values()))
    sums = ", ".join(
        f"count(*) filter (where lacks_{at}) as items_{at}, sum(likes) filter (where lacks_{at}) as likes_{at}"
        for at in range(len(LACKS))
    )
    names = ", ".join(f"({at}, '{what}', items_{at}, likes_{at})" for at, what in enumerate(LACKS))
    return rows(
        connection,
        f"""with {_LIKED}
        select w.what, w.items, coalesce(w.likes, 0)::bigint as likes, w.items::float8 / s.videos as item_share,
            coalesce(w.likes / nullif(s.all_likes, 0), 0)::float8 as like_share
        from (
            select count(*) as videos, sum(likes) as all_likes, {sums}
            from (select l.likes, {flags} from public.videos v left join liked l on l.video_id = v.id) as f
        ) as s
        cross join lateral (values {names}) as w (at, what, items, likes)
        where s.videos > 0 order by w.at""",
    )


def lacking(connection: Connection, what: str, limit: int = 20) -> list[Row]:
    """Videos that lack it, those with the most likes first: ``title``, ``product_url``, ``likes``."""
    return rows(
        connection,
        f"""with {_LIKED}
        select v.title, v.product_url, coalesce(l.likes, 0) as likes
        from public.videos v left join liked l on l.video_id = v.id
        where {LACKS[what]} order by l.likes desc nulls last, v.id limit %s""",
        limit,
    )


def spread(connection: Connection) -> list[Row]:
    """How likes are spread: of ``who`` (users, videos), how many have up to so many likes; bounds double."""
    return rows(
        connection,
        f"""with {_LIKED},
        counted as (
            select 'users' as who, count(*) filter (where decision_type::text = 'like') as likes
            from public.user_video_decisions group by user_id
            union all
            select 'videos', coalesce(l.likes, 0) from public.videos v left join liked l on l.video_id = v.id
        )
        select c.who, b.least, sum(c.number)::bigint as number
        from (select who, likes, count(*) as number from counted group by who, likes) as c
        cross join lateral (select case when c.likes = 0 then 0 else 2 ^ floor(log(2, c.likes)) end::int) as b (least)
        group by c.who, b.least order by c.who, b.least""",
    )


def decisions_by_month(connection: Connection, months: int = 36) -> list[Row]:
    """``month``, ``decision``, ``number``, for the latest months with decisions."""
    return rows(
        connection,
        """with daily as (
            select date_bin('1 day', two_tower.time_of(created_at), timestamptz '2000-01-01 00:00Z') as day,
                decision_type, count(*) as number
            from public.user_video_decisions group by 1, 2
        ),
        monthly as (
            select date_trunc('month', day, 'UTC') as month, decision_type as decision, sum(number)::bigint as number
            from daily group by 1, 2
        )
        select month, decision, number from monthly
        where month in (select distinct month from monthly order by month desc limit %s) order by 1, 2""",
        months,
    )


# ------------------------------------------------------------------------------------------------- recommendations


def reach(connection: Connection, version: str) -> Row:
    """Of a version: ``users`` with likes and those of them ``reached`` by a vector, ``published`` videos and those with
    a vector (``embedded``)."""
    return row(
        connection,
        """select
            (select count(*) from two_tower.user_features where like_count > 0) as users,
            (select count(*) from two_tower.user_embeddings where model_version = %(version)s) as reached,
            (select count(*) from public.videos where published_at <= now()) as published,
            (
                select count(*) from two_tower.video_embeddings e join public.videos v on v.id = e.video_id
                where e.model_version = %(version)s and v.published_at <= now()
            ) as embedded""",
        version=version,
    )


def sample(connection: Connection, version: str, users: int, limit: int) -> list[Row]:
    """What a version recommends to a sample of users, by hash of their ids: ``video_id``, its ``times`` on a list, and
    how many ``users`` were asked."""
    return rows(
        connection,
        """with asked as (
            select array(
                select user_id from two_tower.user_embeddings where model_version = %(version)s
                order by uuid_hash_extended(user_id, 0) limit %(users)s
            ) as users
        )
        select r.video_id, count(*) as times, cardinality(a.users) as users
        from asked a
        cross join lateral two_tower.preview_recommendations(a.users, %(version)s, %(limit)s) r
        where r.reason = 'taste'
        group by r.video_id, a.users order by times desc, r.video_id""",
        version=version,
        users=users,
        limit=limit,
    )


def against_data(
    connection: Connection, kind: str, videos: tuple[UUID, ...], times: tuple[int, ...], limit: int = 20
) -> list[Row]:
    """``value``, and the shares of items, of likes and of recommendations (``videos``, each so many ``times``) that
    carry it; those first whose share of recommendations or likes is largest."""
    return rows(
        connection,
        f"""with {_LIKED},
        recommended as (select * from unnest(%(videos)s::uuid[], %(times)s::bigint[]) as r (video_id, times)),
        carried as (
            select c.value, count(*)::float8 / (select count(*) from public.videos) as items,
                coalesce(sum(l.likes) / nullif((select sum(likes) from liked), 0), 0)::float8 as likes,
                coalesce(sum(r.times) / nullif((select sum(times) from recommended), 0), 0)::float8 as recommendations
            from ({_VALUES[kind]}) as c
            left join liked l on l.video_id = c.video_id
            left join recommended r on r.video_id = c.video_id
            group by c.value
        )
        select value, items, likes, recommendations from carried
        order by greatest(likes, recommendations) desc, value limit %(limit)s""",
        videos=list(videos),
        times=list(times),
        limit=limit,
    )


def by_popularity(connection: Connection, videos: tuple[UUID, ...], times: tuple[int, ...]) -> list[Row]:
    """Published videos in ten bands of equal size, band 1 with the most likes: the shares of all likes and of
    recommendations that each has."""
    return rows(
        connection,
        f"""with {_LIKED},
        recommended as (select * from unnest(%(videos)s::uuid[], %(times)s::bigint[]) as r (video_id, times)),
        banded as (
            select ntile({BANDS}) over (order by coalesce(l.likes, 0) desc, v.id) as band,
                coalesce(l.likes, 0) as likes, coalesce(r.times, 0) as times
            from public.videos v
            left join liked l on l.video_id = v.id
            left join recommended r on r.video_id = v.id
            where v.published_at <= now()
        )
        select band, count(*)::float8 / sum(count(*)) over () as items,
            coalesce(sum(likes) / nullif(sum(sum(likes)) over (), 0), 0)::float8 as likes,
            coalesce(sum(times) / nullif(sum(sum(times)) over (), 0), 0)::float8 as recommendations
        from banded group by band order by band""",
        videos=list(videos),
        times=list(times),
    )


# ------------------------------------------------------------------------------------------------- models


def models(connection: Connection, limit: int = 50) -> list[Row]:
    """The newest versions, newest first: ``state``, ``metrics`` less the parity sample, ``meta``, sizes and times."""
    return rows(
        connection,
        """select m.version, m.state, m.forced, m.registered_at, m.backfilled_at, m.activated_at,
            m.user_dim, m.item_dim, d.metrics - 'parity' as metrics, d.meta
        from two_tower.model_versions m join two_tower.model_documents d on d.model_version = m.version
        order by m.number desc limit %s""",
        limit,
    )


def events(connection: Connection, limit: int = 100) -> list[Row]:
    """The latest changes of state, latest first, with what the gate found (``report``) where it was asked."""
    return rows(
        connection,
        """select at, model_version, from_state, to_state, forced, role, report
        from two_tower.model_events order by id desc limit %s""",
        limit,
    )


def thresholds(connection: Connection) -> list[Row]:
    """``name``, ``value`` and ``description`` of what the gate asks for."""
    return rows(
        connection,
        "select name, value, description from two_tower.settings where name like 'gate\\_%' order by name",
    )


# ------------------------------------------------------------------------------------------------- freshness


def status(connection: Connection) -> Row:
    """The row of ``two_tower.status``."""
    return row(connection, "select * from two_tower.status")


def jobs(connection: Connection) -> list[Row]:
    """The rows of ``two_tower.jobs``: each job, whether it is scheduled and failing, its last success and error."""
    return rows(connection, "select * from two_tower.jobs order by failing desc, last_success desc nulls last, job")


def runs(connection: Connection, limit: int = 50) -> list[Row]:
    """The latest runs of all jobs, imports among them: ``job``, times, ``result``, ``error``."""
    return rows(
        connection,
        "select job, started_at, finished_at, result, error from two_tower.job_log order by id desc limit %s",
        limit,
    )


def throughput(connection: Connection, hours: int) -> list[Row]:
    """Refreshes in 60 equal stretches of the last ``hours``: ``at``, ``until``, ``users`` and ``videos`` looked
    at, ``vectors`` written, ``failed`` ones, ``seconds`` that refreshes took; ``since`` and ``now``, the ends of it."""
    return rows(
        connection,
        """select b.at, b.at + make_interval(secs => %(hours)s * 60) as until,
            coalesce(sum((r.result ->> 'users')::bigint), 0)::bigint as users,
            coalesce(sum((r.result ->> 'videos')::bigint), 0)::bigint as videos,
            coalesce(sum((r.result ->> 'vectors')::bigint), 0)::bigint as vectors,
            coalesce(sum((r.result ->> 'failed')::bigint), 0)::bigint as failed,
            coalesce(sum(extract(epoch from r.finished_at - r.started_at)), 0)::float8 as seconds,
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
    """Users and videos that were set aside, the latest first."""
    return rows(
        connection,
        """select kind, id, sqlstate, error, attempts, failed_at, retry_at
        from two_tower.failed_changes order by failed_at desc limit %s""",
        limit,
    )


def problems(connection: Connection) -> list[Row]:
    """The rows of ``two_tower.problems``: ``what`` is broken, in ``detail``, and its ``remedy``."""
    return rows(connection, "select * from two_tower.problems")
