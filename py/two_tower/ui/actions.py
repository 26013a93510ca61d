"""What the page does, each on a short connection of its own.

A like is written as the user's own, the way PostgREST writes it: as ``authenticated``, with the claims of a token. What
is done to models is done as whoever the connection string names, where that role may. That login need not have rights
of its own to what users write, so only what is done to models looks at whether the database is migrated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg

from two_tower.lifecycle import experiments, registry
from two_tower.progress import Progress
from two_tower.rows import row
from two_tower.server.connection import connect

DECISIONS = ("like", "nope", "skip")


def abilities(dsn: str) -> dict[str, bool]:
    """Whether the login may ``decide`` on a user's behalf, ``activate`` a model, ``roll_back`` and ``experiment``."""
    with connect(dsn, autocommit=True, application_name="two-tower ui", migrated=False) as connection:
        # From PostgreSQL 16 on a role may be granted without the right to take it.
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
                    and has_function_privilege('two_tower.stop_experiment(text)', 'execute')""",
            (option,),
        )
    return dict(zip(("decide", "activate", "roll_back", "experiment"), found, strict=True))


@contextmanager
def _as_user(connection: psycopg.Connection[Any], user: UUID) -> Iterator[None]:
    """A transaction as PostgREST makes it for a user's token."""
    claims = json.dumps({"sub": str(user), "role": "authenticated"})
    with connection.transaction():
        connection.execute("set local role authenticated")
        connection.execute("select set_config('request.jwt.claims', %s, true)", (claims,))
        yield


def decide(dsn: str, user: UUID, video: UUID, decision: str | None) -> str:
    """Write a user's decision on a video, or take it back with None, then have the user embedded; what to tell.

    Without an active model the decision is written all the same. Raises psycopg.Error where the database refuses it.
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
            return "Saved. No model is active, so there is nothing to embed."
    return "Saved, and the user is embedded anew."


def activate(dsn: str, version: str, progress: Progress) -> dict[str, Any]:
    """Embed what ``version`` lacks, ask its gate and make it serve. Raises GateFailed with what the gate says."""
    with connect(dsn, autocommit=True, application_name="two-tower ui") as connection:
        return registry.activate(connection, version, progress)


def roll_back(dsn: str, version: str) -> dict[str, Any]:
    """Make a version that stands by serve again, at once."""
    with connect(dsn, autocommit=True, application_name="two-tower ui") as connection:
        return registry.roll_back(connection, version)


def start_experiment(dsn: str, control: str, challenger: str, share: float, progress: Progress) -> dict[str, Any]:
    """Serve ``share`` of the users by ``challenger``. Raises GateFailed with what its gate says."""
    with connect(dsn, autocommit=True, application_name="two-tower ui") as connection:
        return experiments.start(connection, control, challenger, share, progress)


def stop_experiment(dsn: str, winner: str) -> dict[str, Any]:
    """End the experiment; ``winner`` serves everybody."""
    with connect(dsn, autocommit=True, application_name="two-tower ui") as connection:
        return experiments.stop(connection, winner)
