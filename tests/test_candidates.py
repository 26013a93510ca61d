"""``rank_candidates``: a list of the application's, in the order of the caller's taste."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

import pytest
from psycopg import errors

from conftest import Connection
from test_serving import ids, without
from world_fixtures import NOBODY, Client, column, ident, make_world

pytestmark = pytest.mark.world

WORLD = make_world()
PUBLISHED = [str(v) for v in WORLD.published]
Rows = list[dict[str, Any]]


def ranked(client: Client, user: UUID | None, videos: Any) -> Rows:
    rows = client.rpc("authenticated", user, "rank_candidates", video_ids=videos)
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    assert all(row.keys() == {"video_id", "score", "rank", "because_video_id", "because_title"} for row in rows)
    return rows


def shuffled(videos: list[str]) -> list[str]:
    return random.Random(0).sample(videos, len(videos))


@pytest.mark.parametrize("user", [WORLD.usual, WORLD.one_like, WORLD.users[7]])
@pytest.mark.parametrize("count", [1, 20, 200])
def test_candidates_are_in_the_order_of_the_users_own_list(user: UUID, count: int, client: Client) -> None:
    rows = client.rpc("authenticated", user, "recommend_videos", limit=count)
    taste = [row for row in rows if row["reason"] == "taste"]
    found = ranked(client, user, shuffled(ids(rows)))
    assert ids(found)[: len(taste)] == ids(taste)
    assert [row["score"] for row in found][: len(taste)] == pytest.approx([row["score"] for row in taste], abs=1e-6)
    assert {row["score"] for row in found[len(taste) :]} <= {None}


def test_neighbours_count_as_in_the_users_own_list(db: Connection, client: Client) -> None:
    from test_neighbours import activate, invented, register, videos_of

    register(db, invented(videos_of(db), each=60, scale=5))
    activate(db)
    rows = client.rpc("authenticated", WORLD.usual, "recommend_videos", limit=100)
    found = ranked(client, WORLD.usual, shuffled(ids(rows)))
    taste = [row for row in rows if row["reason"] == "taste"]
    assert [row["score"] for row in found][: len(taste)] == pytest.approx([row["score"] for row in taste], abs=1e-5)


def test_videos_with_decisions_are_ranked_too(client: Client) -> None:
    """The list is the application's, and none of it is left out."""
    expected = set(PUBLISHED)
    assert set(ids(ranked(client, WORLD.many, PUBLISHED))) == expected


def test_hidden_candidates_are_left_out_and_duplicates_removed(client: Client) -> None:
    hidden = [str(v) for v in (WORLD.unpublished_video, WORLD.future_video, NOBODY)]
    given = PUBLISHED[:5]
    assert sorted(ids(ranked(client, WORLD.usual, [*given, *hidden, None, *given]))) == sorted(given)


@pytest.mark.parametrize("nothing", [None, [], [None], [str(NOBODY)]])
def test_no_candidates_give_an_empty_list(nothing: Any, client: Client) -> None:
    assert ranked(client, WORLD.usual, nothing) == []


@pytest.mark.parametrize("user", [WORLD.no_decisions, WORLD.only_skips, NOBODY])
def test_candidates_of_an_unknown_user_are_ranked_by_popularity(user: UUID, db: Connection, client: Client) -> None:
    popular = [
        str(v) for v in column(db, "select video_id from two_tower.video_popularity order by score desc, video_id")
    ]
    popular = [v for v in popular if v in PUBLISHED]
    rest = [v for v in PUBLISHED if v not in popular]
    found = ranked(client, user, [*rest, *popular])
    assert ids(found) == [*popular, *rest]
    assert {row["score"] for row in found} == {None}


def test_candidates_are_ranked_before_a_refresh_and_without_a_model(db: Connection, client: Client) -> None:
    user = ident("user", 777)
    db.execute("insert into auth.users (id) values (%s)", [user])
    db.execute("insert into user_video_decisions values (%s, %s, 'like')", [user, PUBLISHED[9]])
    assert ranked(client, user, PUBLISHED[:9])[0]["score"] is not None
    db.execute("update two_tower.model_versions set state = 'standby'")
    assert {row["score"] for row in ranked(client, WORLD.usual, PUBLISHED)} == {None}


def test_at_most_2000_candidates_are_ranked_at_once(client: Client) -> None:
    many = [PUBLISHED[at % len(PUBLISHED)] for at in range(2001)]
    assert len(ranked(client, WORLD.usual, many[:2000])) == len(PUBLISHED)
    with pytest.raises(errors.InvalidParameterValue, match="at most 2000 videos can be ranked at once, not 2001"):
        ranked(client, WORLD.usual, many)
    with pytest.raises(errors.InvalidAuthorizationSpecification):
        ranked(client, None, PUBLISHED[:1])
    with pytest.raises(errors.InsufficientPrivilege):
        client.rpc("anon", None, "rank_candidates", video_ids=PUBLISHED[:1])


def test_the_best_of_all_videos_are_the_recommendations(client: Client) -> None:
    new = without(WORLD.usual)
    best = [v for v in ids(ranked(client, WORLD.usual, PUBLISHED)) if v in new][:20]
    assert best == ids(client.rpc("authenticated", WORLD.usual, "recommend_videos"))
