"""The catalogue and the decisions as a whole."""

from __future__ import annotations

from typing import LiteralString

from two_tower.ui.queries.sizes import Source, attributes, decisions, features, videos
from two_tower.ui.queries.viewer import Connection, Row, row, rows

NAMED: dict[str, tuple[LiteralString, LiteralString, LiteralString]] = {
    "tag": ("public.video_tags", "public.tags", "tag_id"),
    "performer": ("public.video_performers", "public.performers", "performer_id"),
}
"""For attributes with tables: the table of pairs with videos, the table with the names, and the key of the latter."""

COLUMNS: dict[str, LiteralString] = {"maker": "maker", "label": "label", "series": "series", "source": "source"}
"""For attributes that are texts of a video: the column."""

KINDS = (*NAMED, *COLUMNS)
"""Attributes of videos whose distribution is shown."""


def totals(connection: Connection) -> Row:
    """Numbers of ``videos``, ``published`` ones, ``users`` with decisions, ``likes``, ``nopes`` and ``skips``. If there
    are many decisions, users are those with a like or a nope."""
    source = decisions(connection)
    users: LiteralString = f"(select count(*) from (select distinct user_id from {source.table}) as u)"
    if source.factor > 1:
        users = f"{features(connection).rows:.0f}::bigint"
    return row(
        connection,
        f"""select v.videos, v.published, {users} as users, d.likes, d.nopes, d.skips
        from (
            select count(*) as videos, count(*) filter (where published_at <= now()) as published from public.videos
        ) as v
        cross join (
            select coalesce(sum(number) filter (where kind = 'like'), 0)::bigint as likes,
                coalesce(sum(number) filter (where kind = 'nope'), 0)::bigint as nopes,
                coalesce(sum(number) filter (where kind = 'skip'), 0)::bigint as skips
            from (
                select decision_type::text as kind, {source.counted} as number from {source.table} group by 1
            ) as k
        ) as d""",
    )


def liked(connection: Connection) -> LiteralString:
    """SQL of ``liked (video_id, likes)``, a common table expression. If there are many decisions, from the last counts
    of the daily job ``two_tower_popularity``, or before its first run from a sample."""
    source = decisions(connection)
    if source.factor > 1 and connection.execute("select 1 as one from two_tower.video_popularity limit 1").fetchone():
        return """liked as not materialized (
    select video_id, likers::bigint as likes from two_tower.video_popularity where likers > 0
)"""
    return f"""liked as (
    select video_id, {source.counted} as likes from {source.table}
    where decision_type::text = 'like' group by video_id
)"""


def carried(connection: Connection, kind: str, *, every: bool = False) -> Source:
    """``(video_id, value)`` of an attribute, from a sample if there are many, unless ``every`` one is needed. Empty
    texts are left out."""
    if kind in NAMED:
        table, named, key = NAMED[kind]
        source = Source(table) if every else attributes(connection, table)
        values: LiteralString = f"""(
            select t.video_id, n.name as value from {source.called("t")} join {named} n on n.id = t.{key}
        )"""
    else:
        column = COLUMNS[kind]
        source = Source("public.videos") if every else videos(connection)
        values = f"(select id as video_id, {column} as value from {source.table} where {column} <> '')"
    return Source(values, factor=source.factor)


def attribute(connection: Connection, kind: str, limit: int = 25) -> list[Row]:
    """The values of an attribute with the most likes: ``value``, its ``items`` and ``likes``, and their shares of all
    items and of all likes. ``values`` is the number of all values, or of those in the sample."""
    source = carried(connection, kind)
    return rows(
        connection,
        f"""with {liked(connection)},
        carried as (
            select c.value, {source.counted} as items, coalesce({source.scaled("sum(l.likes)")}, 0)::bigint as likes
            from {source.table} as c left join liked l on l.video_id = c.video_id
            group by c.value
        )
        select c.value, c.items, c.likes, c.items::float8 / (select count(*) from public.videos) as item_share,
            coalesce(c.likes::float8 / nullif((select sum(likes) from liked), 0), 0)::float8 as like_share,
            count(*) over () as values
        from carried c order by c.likes desc, c.items desc, c.value limit %(limit)s""",
        limit=limit,
    )


# What a video may lack, as a condition on v and on its row l of liked. A "not exists" would read all tags, even for a
# sample of videos.
LACKS: dict[str, LiteralString] = {
    "tags": "(select true from public.video_tags t where t.video_id = v.id limit 1) is null",
    "performers": "(select true from public.video_performers t where t.video_id = v.id limit 1) is null",
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
    """Missing values: ``what``, the number of ``items`` that lack it, the number of their ``likes``, and the shares."""
    source = videos(connection)
    flags = ", ".join(f"{condition} as lacks_{at}" for at, condition in enumerate(LACKS.values()))
    sums = ", ".join(
        f"{source.scaled(f'{figure} filter (where lacks_{at})')} as {name}_{at}"
        for at in range(len(LACKS))
        for name, figure in (("items", "count(*)"), ("likes", "sum(likes)"))
    )
    names = ", ".join(f"({at}, '{what}', items_{at}, likes_{at})" for at, what in enumerate(LACKS))
    return rows(
        connection,
        f"""with {liked(connection)},
        -- Materialized, or each condition would be evaluated twice, for items and for likes.
        videos as materialized (
            select l.likes, {flags} from {source.called("v")} left join liked l on l.video_id = v.id
        )
        select w.what, w.items::bigint as items, coalesce(w.likes, 0)::bigint as likes,
            w.items::float8 / s.videos as item_share,
            coalesce(w.likes / nullif(s.all_likes, 0), 0)::float8 as like_share
        from (
            select {source.counted} as videos, {source.scaled("sum(likes)")} as all_likes, {sums} from videos
        ) as s
        cross join lateral (values {names}) as w (at, what, items, likes)
        where s.videos > 0 order by w.at""",
    )


def lacking(connection: Connection, what: str, limit: int = 20) -> list[Row]:
    """Videos that lack ``what``, those with the most likes first: ``title``, ``product_url``, ``likes``."""
    return rows(
        connection,
        f"""with {liked(connection)}
        select v.title, v.product_url, coalesce(l.likes, 0) as likes
        from public.videos v left join liked l on l.video_id = v.id
        where {LACKS[what]} order by l.likes desc nulls last, v.id limit %s""",
        limit,
    )


def spread(connection: Connection) -> list[Row]:
    """Distribution of likes: for ``who`` (users, videos), the ``number`` with at least ``least`` likes and fewer than
    the next bound; bounds double."""
    of_videos = videos(connection)
    counts: LiteralString = f"""select count(*) filter (where decision_type::text = 'like') as likes, 1 as number
            from {decisions(connection).table} group by user_id"""
    if decisions(connection).factor > 1:
        # A sample of decisions would have a part of each user's.
        users = features(connection)
        counts = f"select like_count as likes, {users.counted} as number from {users.table} group by like_count"
    return rows(
        connection,
        f"""with {liked(connection)},
        of_users as (
            {counts}
        ),
        counted as (
            select 'users' as who, likes, number from of_users
            union all
            select 'videos', coalesce(l.likes, 0), {of_videos.counted}
            from {of_videos.called("v")} left join liked l on l.video_id = v.id group by 2
        )
        select c.who, b.least, sum(c.number)::bigint as number
        from (select who, likes, sum(number) as number from counted group by who, likes) as c
        cross join lateral (select case when c.likes = 0 then 0 else 2 ^ floor(log(2, c.likes)) end::int) as b (least)
        group by c.who, b.least order by c.who, b.least""",
    )


def decisions_by_month(connection: Connection, months: int = 36) -> list[Row]:
    """``month``, ``decision``, ``number``, for the latest months with decisions."""
    source = decisions(connection)
    return rows(
        connection,
        f"""with daily as (
            select date_bin('1 day', two_tower.time_of(created_at), timestamptz '2000-01-01 00:00Z') as day,
                decision_type, {source.counted} as number
            from {source.table} group by 1, 2
        ),
        monthly as (
            select date_trunc('month', day, 'UTC') as month, decision_type as decision, sum(number)::bigint as number
            from daily group by 1, 2
        )
        select month, decision, number from monthly
        where month in (select distinct month from monthly order by month desc limit %s) order by 1, 2""",
        months,
    )
