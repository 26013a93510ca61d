"""The actions of the page, each on a short connection of its own.

A like is written as PostgREST would write it for the user: as ``authenticated``, with the claims of a token. Actions on
models run as the login of the connection string, if it has the rights. That login may have no rights of its own to the
decisions, so only actions on models check whether the database is migrated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from two_tower.errors import UserError
from two_tower.lifecycle import experiments, registry
from two_tower.progress import Progress
from two_tower.rows import row
from two_tower.server.connection import connect

DECISIONS = ("like", "nope", "skip")


@dataclass(frozen=True)
class Promotion:
    """A row to add to ``two_tower.promotions``: for one ``video``, or for the ``videos`` that pass a filter."""

    kind: str
    video: UUID | None = None
    videos: dict[str, Any] | None = None
    segment: dict[str, Any] | None = None
    strength: float | None = None
    rank: int | None = None
    ends_at: datetime | None = None
    note: str | None = None


def abilities(dsn: str) -> dict[str, bool]:
    """Whether the login may ``decide`` on a user's behalf, ``activate`` a model, ``roll_back``, ``experiment`` and
    ``promote``."""
    with connect(dsn, autocommit=True, application_name="two-tower ui", migrated=False) as connection:
        # From PostgreSQL 16 on, a role may be granted without the right to switch to it.
        option = "set" if connection.info.server_version >= 160000 else "member"
        found = row(
            connection,
            """select pg_has_role('authenticated', %s),
                has_schema_privilege('two_tower', 'usage')
                    and has_function_privilege('two_tower.activate_model(text, boolean, jsonb, jsonb)', 'execute'),
                has_schema_privilege('two_tower', 'usage')
                    and has_function_privilege('two_tower.rollback_model(text)', 'execute'),
                has_schema_privilege('two_tower', 'usage')
                    and has_function_privilege(
                        'two_tower.start_experiment(text, text, double precision, boolean, jsonb, jsonb)', 'execute'
                    )
                    and has_function_privilege('two_tower.stop_experiment(text)', 'execute'),
                has_schema_privilege('two_tower', 'usage')
                    and has_table_privilege('two_tower.promotions', 'insert')
                    and has_table_privilege('two_tower.promotions', 'update')
                    and has_table_privilege('two_tower.promotions', 'delete')""",
            (option,),
        )
    return dict(zip(("decide", "activate", "roll_back", "experiment", "promote"), found, strict=True))


@contextmanager
def _as_user(connection: psycopg.Connection[Any], user: UUID) -> Iterator[None]:
    """A transaction like PostgREST's for a user's token."""
    claims = json.dumps({"sub": str(user), "role": "authenticated"})
    with connection.transaction():
        connection.execute("set local role authenticated")
        connection.execute("select set_config('request.jwt.claims', %s, true)", (claims,))
        yield


def decide(dsn: str, user: UUID, video: UUID, decision: str | None) -> str:
    """Write a user's decision on a video, or delete it with None, then embed the user; returns a message.

    The decision is written even without an active model. Raises psycopg.Error if the database refuses it.
    """
    with connect(dsn, autocommit=True, application_name="two-tower ui", migrated=False) as connection:
        with _as_user(connection, user):
            if decision is None:
                connection.execute(
                    "delete from public.user_video_decisions where user_id = %s and video_id = %s", (user, video)
                )
            else:
                connection.execute(
                    """insert into public.user_video_decisions (user_id, video_id, decision_type) values (%s, %s, %s)
                    on conflict (user_id, video_id) do update set decision_type = excluded.decision_type""",
                    (user, video, decision),
                )
        try:
            with _as_user(connection, user):
                connection.execute("select public.embed_user()")
        except psycopg.errors.ObjectNotInPrerequisiteState:
            return "Saved. No model is active, so no vector was computed."
    return "Saved. The user's vector is up to date."


def replay(dsn: str, user: UUID, likes: int = 4, limit: int = 10) -> list[dict[str, Any]]:
    """Repeats a user's first likes in turn: the ``liked`` title (None before the first) and the ``videos`` recommended
    then, each with its ``title`` and ``reason``. Everything is rolled back at the end.

    Raises psycopg.Error if the database refuses, such as without an active model.
    """
    with connect(dsn, autocommit=True, application_name="two-tower ui", migrated=False) as connection:
        steps: list[dict[str, Any]] = []
        with connection.transaction(force_rollback=True), _as_user(connection, user):
            first = connection.execute(
                """select d.video_id, v.title
                from public.user_video_decisions d join public.videos v on v.id = d.video_id
                where d.user_id = %s and d.decision_type::text = 'like' order by d.created_at, d.video_id limit %s""",
                (user, likes),
            ).fetchall()
            connection.execute("delete from public.user_video_decisions where user_id = %s", (user,))
            for video, title in [(None, None), *first]:
                if video is not None:
                    connection.execute(
                        """insert into public.user_video_decisions (user_id, video_id, decision_type)
                        values (%s, %s, 'like')""",
                        (user, video),
                    )
                connection.execute("select public.embed_user()")
                shown = connection.execute(
                    'select title, reason from public.recommend_videos("limit" => %s) order by rank', (limit,)
                ).fetchall()
                steps.append({"liked": title, "videos": [{"title": name, "reason": reason} for name, reason in shown]})
    return steps


def activate(dsn: str, version: str, progress: Progress) -> dict[str, Any]:
    """Compute the vectors that ``version`` lacks, check its gate and activate it. Raises GateFailed if that refuses."""
    with connect(dsn, autocommit=True, application_name="two-tower ui") as connection:
        return registry.activate(connection, version, progress)


def roll_back(dsn: str, version: str) -> dict[str, Any]:
    """Activate a standby version again, at once."""
    with connect(dsn, autocommit=True, application_name="two-tower ui") as connection:
        return registry.roll_back(connection, version)


def start_experiment(dsn: str, control: str, challenger: str, share: float, progress: Progress) -> dict[str, Any]:
    """Serve ``share`` of the users by ``challenger``. Raises GateFailed with the reasons of its gate."""
    with connect(dsn, autocommit=True, application_name="two-tower ui") as connection:
        return experiments.start(connection, control, challenger, share, progress)


def stop_experiment(dsn: str, winner: str) -> dict[str, Any]:
    """End the experiment; ``winner`` serves everybody."""
    with connect(dsn, autocommit=True, application_name="two-tower ui") as connection:
        return experiments.stop(connection, winner)


def add_promotion(dsn: str, promotion: Promotion) -> dict[str, Any]:
    """Apply a promotion from now on; returns its ``id`` and ``kind``. Raises psycopg.Error if it is invalid."""
    with connect(dsn, autocommit=True, application_name="two-tower ui") as connection:
        number, kind = row(
            connection,
            """insert into two_tower.promotions (kind, video_id, videos, segment, strength, rank, ends_at, note)
            values (%s, %s, %s, %s, coalesce(%s, 2), %s, %s, %s) returning id, kind""",
            (
                promotion.kind,
                promotion.video,
                None if promotion.videos is None else Jsonb(promotion.videos),
                None if promotion.segment is None else Jsonb(promotion.segment),
                promotion.strength,
                promotion.rank,
                promotion.ends_at,
                promotion.note,
            ),
        )
    return {"id": number, "kind": kind}


def end_promotion(dsn: str, number: int) -> dict[str, Any]:
    """End it at once; one that has not begun is deleted. Raises UserError if no promotion of this number is active."""
    with connect(dsn, autocommit=True, application_name="two-tower ui") as connection, connection.transaction():
        gone = connection.execute(
            "delete from two_tower.promotions where id = %s and starts_at >= now() returning id", (number,)
        ).fetchone()
        ended = (
            gone
            or connection.execute(
                """update two_tower.promotions set ends_at = now()
            where id = %s and starts_at < now() and (ends_at <= now()) is not true returning id""",
                (number,),
            ).fetchone()
        )
    if ended is None:
        raise UserError(f"promotion {number} has already ended, or does not exist", "reload the page")
    return {"id": number}
