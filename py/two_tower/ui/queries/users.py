"""Users, their decisions, and their recommendations."""

from __future__ import annotations

import re
from typing import LiteralString
from uuid import UUID

from two_tower.ids import user_uuid
from two_tower.ui.queries.sizes import features
from two_tower.ui.queries.viewer import Connection, Row, row, rows

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
    """``user_id``, ``likes``, ``nopes``, ``skips`` of matching users, most likes first.

    ``text`` is an id, the beginning of one, or an id of the application that an import converted to a UUID. Without it,
    the users with the most likes; if there are many users, from a sample. A complete id is returned even if nothing is
    known about it.
    """
    text = text.strip()
    digits = text.replace("-", "").lower()
    if not text:
        return rows(
            connection,
            f"""with found as (
                (select user_id from {features(connection).table} order by like_count desc, user_id limit %(limit)s)
                union all
                -- Before the first refresh, no user has features.
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
    """A random user with features; None if there is none."""
    # Drawn once, in a subquery: drawn for each row, it would always end near the beginning of the index.
    found = connection.execute(
        """(
            select user_id from two_tower.user_features where user_id >= (select gen_random_uuid())
            order by user_id limit 1
        )
        union all (select user_id from two_tower.user_features order by user_id limit 1) limit 1"""
    ).fetchone()
    return found["user_id"] if found else None


def taste(connection: Connection, user: UUID, limit: int = 12) -> Row:
    """Counts and times of a user's decisions, most liked ``tags`` (name, likes), whether a change is ``pending``."""
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


# An adopted table may have no column of images, in which case that of the row called absent is used, or one of JSON.
_CARD: LiteralString = """v.title, v.thumbnail_url, v.product_url, v.maker,
(
    select i.urls
    from (select null::text[] as image_urls) as absent
    cross join lateral (select to_jsonb(image_urls) as urls from public.videos o where o.id = v.id) as i
) as image_urls,
array(
    select g.name from public.video_tags t join public.tags g on g.id = t.tag_id
    where t.video_id = v.id order by g.name limit 8
) as tags,
array(
    select p.name from public.video_performers t join public.performers p on p.id = t.performer_id
    where t.video_id = v.id order by p.name limit 4
) as performers"""


def history(connection: Connection, user: UUID, decisions: tuple[str, ...], limit: int = 20) -> list[Row]:
    """Videos that a user decided on, latest first: ``video_id``, ``decision``, ``created_at``, columns of a card."""
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
    ``decision`` on it, and columns of a card. With ``known``, includes videos that the user has decided on."""
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


def contributions(connection: Connection, user: UUID, video: UUID, version: str, limit: int = 12) -> list[Row]:
    """The parts of a video's score for a user, the largest first: ``kind`` (like, nope, everybody, others), the
    ``title`` of the video decided on, the ``value`` that it adds, the ``number`` of decisions, and its ``place``. Parts
    beyond the first ``limit`` are combined as others. Empty if the version's user tower is no sum."""
    return rows(
        connection,
        """with parts as (
            select c.kind, c.because_video_id, c.value,
                row_number() over (order by abs(c.value) desc, c.because_video_id) as place
            from two_tower.preview_contributions(%(user)s, %(video)s, %(version)s) c
        )
        select p.kind, v.title, p.value, 1::bigint as number, p.place
        from parts p left join public.videos v on v.id = p.because_video_id
        where p.place <= %(limit)s
        union all
        select 'others', null, sum(p.value), count(*), min(p.place) from parts p where p.place > %(limit)s
        having count(*) > 0
        order by place""",
        user=user,
        video=video,
        version=version,
        limit=limit,
    )
