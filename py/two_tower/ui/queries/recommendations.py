"""What a version recommends, compared with the catalogue and with likes."""

from __future__ import annotations

from uuid import UUID

from two_tower.ui.queries.data import carried, liked
from two_tower.ui.queries.sizes import features, vectors
from two_tower.ui.queries.viewer import Connection, Row, row, rows

BANDS = 10
"""Number of groups of equal size into which videos are divided by popularity."""


def reach(connection: Connection, version: str) -> Row:
    """Numbers of a version: ``users`` with likes, those of them with a vector (``reached``), ``published`` videos, and
    those with a vector (``embedded``)."""
    users = features(connection)
    return row(
        connection,
        f"""select l.users, l.reached,
            (select count(*) from public.videos where published_at <= now()) as published,
            (
                select count(*) from two_tower.video_embeddings e join public.videos v on v.id = e.video_id
                where e.model_version = %(version)s and v.published_at <= now()
            ) as embedded
        from (
            select {users.counted} as users, {users.scaled("count(e.found)")}::bigint as reached
            from {users.called("f")}
            -- One by one: a join might read the vectors of all users.
            left join lateral (
                select true as found from two_tower.user_embeddings e
                where e.user_id = f.user_id and e.model_version = %(version)s limit 1
            ) as e on true
            where f.like_count > 0
        ) as l""",
        version=version,
    )


def sample(connection: Connection, version: str, users: int, limit: int) -> list[Row]:
    """What a version recommends to a sample of users, chosen by hash of their ids: ``video_id``, how many ``times`` it
    is on a list, on whose (``readers``, numbers from 1), and the number of ``users`` in the sample."""
    return rows(
        connection,
        f"""with asked as (
            select array(
                select user_id from {vectors(connection).table} where model_version = %(version)s
                order by uuid_hash_extended(user_id, 0) limit %(users)s
            ) as users
        )
        select r.video_id, count(*) as times, cardinality(a.users) as users,
            array_agg(array_position(a.users, r.user_id) order by r.user_id) as readers
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
    """``value``, and its shares of items, of likes and of recommendations (``videos``, each so many ``times``), in
    descending order of the larger of the last two."""
    source = carried(connection, kind)
    return rows(
        connection,
        f"""with {liked(connection)},
        recommended as (select * from unnest(%(videos)s::uuid[], %(times)s::bigint[]) as r (video_id, times)),
        of_all as (
            select c.value, {source.counted}::float8 / (select count(*) from public.videos) as items,
                coalesce(
                    {source.scaled("sum(l.likes)")} / nullif((select sum(likes) from liked), 0), 0
                )::float8 as likes
            from {source.table} as c left join liked l on l.video_id = c.video_id
            group by c.value
        ),
        of_recommended as (
            select c.value, (sum(r.times) / (select sum(times) from recommended))::float8 as recommendations
            from {carried(connection, kind, every=True).table} as c join recommended r on r.video_id = c.video_id
            group by c.value
        )
        select value, coalesce(items, 0) as items, coalesce(likes, 0) as likes,
            coalesce(recommendations, 0) as recommendations
        from of_all full join of_recommended using (value)
        order by greatest(likes, recommendations) desc, value limit %(limit)s""",
        videos=list(videos),
        times=list(times),
        limit=limit,
    )


def reached(
    connection: Connection, kind: str, videos: tuple[UUID, ...], readers: tuple[int, ...], limit: int = 50
) -> list[Row]:
    """For each ``value`` on lists: its ``places``, the number of distinct ``videos`` there, and the ``users`` whom it
    reaches. The arguments ``videos`` and ``readers`` are pairs, one for each place."""
    return rows(
        connection,
        f"""with shown as (select * from unnest(%(videos)s::uuid[], %(readers)s::int[]) as s (video_id, reader))
        select c.value, count(*) as places, count(distinct s.video_id) as videos, count(distinct s.reader) as users
        from {carried(connection, kind, every=True).table} as c join shown s on s.video_id = c.video_id
        group by c.value order by users desc, places desc, c.value limit %(limit)s""",
        videos=list(videos),
        readers=list(readers),
        limit=limit,
    )


def by_popularity(connection: Connection, videos: tuple[UUID, ...], times: tuple[int, ...]) -> list[Row]:
    """Published videos in bands of equal size, band 1 with the most likes: their shares of items, of likes and of
    recommendations."""
    return rows(
        connection,
        f"""with {liked(connection)},
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
