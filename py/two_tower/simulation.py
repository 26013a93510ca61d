"""A simulated application: users who look at pages, like videos to their taste, and leave.

It sends the requests of PostgREST, as ``authenticated`` with a user's claims. After each simulated day it moves all
times back by a day, so that days pass in seconds. Use it only on throwaway databases: it writes into the
application's tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import psycopg

Connection = psycopg.Connection[Any]


@dataclass
class Visit:
    """The pages that one user was shown in one session, and the likes among them."""

    user: UUID
    version: str | None
    pages: list[list[UUID]] = field(default_factory=list)
    likes: int = 0


@dataclass
class Application:
    """``connection`` is in autocommit mode; its role owns the tables and may switch to ``authenticated``."""

    connection: Connection
    users: list[UUID]
    videos: list[UUID]
    chance: np.ndarray
    """[users, videos]: probability that a user likes a video when it is shown."""
    rng: np.random.Generator
    page: int = 8
    comes: float = 0.9
    """Share of the users who come on a day."""
    stays: float = 0.6
    """Probability that a user who liked something turns the page; half of it for one who liked nothing."""
    nopes: float = 0.1
    """Probability that a video that is not liked is noped."""

    def __post_init__(self) -> None:
        self._row = {user: number for number, user in enumerate(self.users)}
        self._column = {video: number for number, video in enumerate(self.videos)}

    @contextmanager
    def signed_in(self, user: UUID) -> Iterator[Connection]:
        """A transaction as PostgREST opens it for the user's token."""
        with self.connection.transaction():
            self.connection.execute("set local role authenticated")
            claims = json.dumps({"sub": str(user), "role": "authenticated"})
            self.connection.execute("select set_config('request.jwt.claims', %s, true)", (claims,))
            yield self.connection

    def join(self, likes: int) -> None:
        """All users sign up, a day ago, each with a number of likes to their taste."""
        self.connection.execute("insert into auth.users (id) select unnest(%s)", (self.users,))
        for user in self.users:
            likely = self.chance[self._row[user]] ** 3
            chosen = self.rng.choice(len(self.videos), likes, replace=False, p=likely / likely.sum())
            self.connection.execute(
                """insert into public.user_video_decisions (user_id, video_id, decision_type, created_at)
                select %s, unnest(%s), 'like', now() - interval '1 day'""",
                (user, [self.videos[video] for video in chosen]),
            )
        self.connection.execute("call two_tower.refresh()")

    def day(self, by_chance: bool = False) -> list[Visit]:
        """A day: users come, look and decide, and a refresh ends it.

        Pages are those of ``next_videos()``, or with ``by_chance`` drawn uniformly from the videos that the user has
        not decided on, and logged with that propensity.
        """
        visits = [self._visit(user, by_chance) for user in self.users if self.rng.random() < self.comes]
        self.connection.execute("call two_tower.refresh()")
        self._pass_a_day()
        return visits

    def _visit(self, user: UUID, by_chance: bool) -> Visit:
        visit = Visit(user, None)
        while True:
            with self.signed_in(user) as connection:
                if by_chance:
                    shown = self._draw(connection, user)
                else:
                    shown = connection.execute(
                        "select video_id, model_version from public.next_videos(%s)", (self.page,)
                    ).fetchall()
                if not shown:
                    return visit
                visit.version = shown[0][1]
                visit.pages.append([video for video, _ in shown])
                liked = self._decide(connection, user, visit.pages[-1])
            visit.likes += liked
            if self.rng.random() > (self.stays if liked else self.stays / 2):
                return visit

    def _draw(self, connection: Connection, user: UUID) -> list[tuple[UUID, str]]:
        """A page of videos that the user has not decided on, drawn uniformly."""
        decided = {
            video
            for (video,) in connection.execute(
                "select video_id from public.user_video_decisions where user_id = %s", (user,)
            )
        }
        free = [video for video in self.videos if video not in decided]
        chosen = [free[at] for at in self.rng.choice(len(free), self.page, replace=False)]
        list_id = str(uuid4())
        ((version,),) = connection.execute("select two_tower.own_version()").fetchall()
        rows = [
            {
                "video_id": str(video),
                "list_id": list_id,
                "rank": rank,
                "reason": "taste",
                "model_version": version,
                "propensity": self.page / len(free),
            }
            for rank, video in enumerate(chosen, 1)
        ]
        connection.execute("select public.log_shown(%s::jsonb)", (json.dumps(rows),))
        return [(video, version) for video in chosen]

    def _decide(self, connection: Connection, user: UUID, videos: list[UUID]) -> int:
        chance = self.chance[self._row[user], [self._column[video] for video in videos]]
        draws = self.rng.random((2, len(videos)))
        liked = draws[0] < chance
        noped = ~liked & (draws[1] < self.nopes)
        for kind, which in (("like", liked), ("nope", noped)):
            if which.any():
                connection.execute(
                    """insert into public.user_video_decisions (user_id, video_id, decision_type)
                    select %s, unnest(%s), %s on conflict do nothing""",
                    (user, [video for video, decides in zip(videos, which, strict=True) if decides], kind),
                )
        return int(liked.sum())

    def _pass_a_day(self) -> None:
        """Move all times back by a day."""
        with self.connection.transaction():
            self.connection.execute(
                """select two_tower.make_impression_day((i.shown_at at time zone 'UTC')::date - 1)
                from (select distinct date_trunc('day', shown_at, 'UTC') as shown_at from two_tower.impressions) as i"""
            )
            for table, moment in (
                ("two_tower.impressions", "shown_at"),
                ("public.user_video_decisions", "created_at"),
                ("two_tower.experiments", "started_at"),
            ):
                query = f"update {table} set {moment} = {moment} - interval '1 day' where {moment} < now()"  # noqa: S608
                self.connection.execute(query.encode())
