"""A replay evaluates a version by the lists that it would have shown, and counts the lists that it leaves out.

test_simulation.py shows that it ranks versions as their users would.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from conftest import Connection
from test_steering import setting
from two_tower.cli.main import app
from two_tower.errors import UserError
from two_tower.features import DIM
from two_tower.lifecycle import replay
from world_fixtures import Client, column, make_world, one, rpc

pytestmark = pytest.mark.world(models=2)

WORLD = make_world()
LIKING = [user for user in WORLD.users if WORLD.of(user, "like")]
ME = WORLD.usual


@pytest.fixture
def exploring(db: Connection) -> Connection:
    """A database with exploration in its lists."""
    setting(db, "exploration_share", 0.5)
    db.execute("select two_tower.draw_exploration()")
    return db


def page(client: Client, user: UUID, **arguments: Any) -> None:
    client.rpc("authenticated", user, "next_videos", limit=5, **arguments)


def logged(client: Client, user: UUID, **arguments: Any) -> None:
    """The alternative to next_videos(): a list that the client logs."""
    with client.as_("authenticated", user) as connection:
        rows = rpc(connection, "recommend_videos", limit=5, **arguments)
        rpc(connection, "log_shown", shown=rows)


# ------------------------------------------------------------------------------------------------ exclusions

FILTERS: list[dict[str, Any]] = [
    {"makers": ["maker a"]},
    {"no_tag_ids": [str(WORLD.tags[0])]},
    {"price_max": 30},
    {"released_after": "2001-01-01"},
    {"tag_ids": [str(tag) for tag in WORLD.tags[:9]]},
]
NO_FILTERS: list[dict[str, Any]] = [{}, {"makers": [], "tag_ids": None}, {"exclude": [str(WORLD.published[0])]}]


def test_replay_counts_and_skips_lists_with_unknown_conditions(exploring: Connection, client: Client, dsn: str) -> None:
    db, users = exploring, iter(LIKING)
    for show in (page, logged):
        for given in FILTERS:
            show(client, next(users), **given)
        for given in NO_FILTERS:
            show(client, next(users), **given)
    assert one(db, "select count(distinct list_id) from two_tower.impressions") == 16
    opted_out, silent, chose, asked = (next(users) for _ in range(4))
    for user, choice in ((opted_out, "trained_on"), (silent, "personalised")):
        page(client, user)
        client.rpc("authenticated", user, "set_choices", **{choice: False})
    choices: dict[str, Any]
    for user, choices in ((chose, {"never_makers": ["maker a"]}), (asked, {})):
        client.rpc("authenticated", user, "set_choices")
        page(client, user)
        client.rpc("authenticated", user, "set_choices", **choices)
    page(client, WORLD.no_decisions)
    found = replay.replay(db, "v1")
    assert found["left_out"] == {"filtered": 10, "opted_out": 2, "chosen_since": 1, "before_a_like": 1}
    assert found["lists"] == 6 + 1 + 1  # without filters, of who only asked, and of who has liked nothing
    assert found["left_out"].keys() == replay.LEFT_OUT.keys()
    said = " ".join(CliRunner().invoke(app, ["replay", "v1", "--dsn", dsn]).stdout.split())
    assert (
        "left out: 1 list from before their users chose anew what never to see; 10 lists asked for with filters" in said
    )
    assert "1 list of users who had liked nothing by then" in said
    told = json.loads(CliRunner().invoke(app, ["replay", "v1", "--dsn", dsn, "--json"]).stdout)
    assert told["left_out"] == found["left_out"]


def test_pages_left_out_of_a_replay_still_count_as_shown(exploring: Connection, client: Client) -> None:
    page(client, ME, makers=["maker a"])
    page(client, ME)
    log = replay.read_log(exploring, 30)
    assert len(log.lists) == 1
    numbers = {number: video for video, number in log.videos.items()}
    shown = [{numbers[number] for number in videos} for _, videos in log.shown[log.users[ME]]]
    query = "select array_agg(video_id) from two_tower.impressions where user_id = %s group by list_id"
    assert sorted(map(sorted, shown)) == sorted(sorted(videos) for videos in column(exploring, query, ME))


def test_replay_says_why_all_lists_are_skipped(exploring: Connection, client: Client) -> None:
    page(client, ME, makers=["maker a"])
    with pytest.raises(UserError, match="nothing can be replayed: 1 list asked for with filters"):
        replay.replay(exploring, "v1")


@pytest.mark.parametrize(("at", "liked"), [("now()", 1), ("now() + interval '1 day'", 0), ("'2999-01-01'", 0)])
def test_only_likes_between_the_list_and_now_count(at: str, liked: int, exploring: Connection, client: Client) -> None:
    page(client, ME)
    video = one(exploring, "select video_id from two_tower.impressions where user_id = %s and rank = 1", ME)
    insert = (
        f"insert into user_video_decisions (user_id, video_id, decision_type, created_at) values (%s, %s, 'like', {at})"
    )
    exploring.execute(insert.encode(), (ME, video))
    (shown,) = replay.read_log(exploring, 30).lists
    assert shown.liked.sum() == liked


# ------------------------------------------------------------------------------------------------ hostile users


@pytest.mark.parametrize(("propensity", "n_lists"), [(1e-6, 1), (0.99, 30)], ids=["improbable", "many"])
def test_what_a_user_logs_has_a_bounded_weight(
    propensity: float, n_lists: int, exploring: Connection, client: Client
) -> None:
    """A client may log any propensity and many lists, and like everything in them."""
    for user in LIKING[:20]:
        client.rpc("authenticated", user, "next_videos", limit=60)
    honest = replay.replay(exploring, "v1")
    assert honest["like_rate"] == 0
    hostile = next(user for user in LIKING[20:] if len(WORLD.decided(user)) < 20)
    rows = client.rpc("authenticated", hostile, "recommend_videos", limit=100)
    for number in range(n_lists):
        forged = [row | {"list_id": str(UUID(int=number)), "propensity": propensity} for row in rows]
        client.rpc("authenticated", hostile, "log_shown", shown=forged)
    for row in rows:
        exploring.execute(
            "insert into user_video_decisions (user_id, video_id, decision_type) values (%s, %s, 'like')",
            (hostile, row["video_id"]),
        )
    found = replay.replay(exploring, "v1")
    assert found["users"] == honest["users"] + 1, "the forged lists are replayed"
    assert 0 < found["like_rate"] <= replay.MOST_SHARE + 1e-9
    assert found["support"] == pytest.approx(honest["support"], rel=1), "nor do they change how much the log says"


def test_weights_of_users_are_bounded_by_their_share() -> None:
    rng = np.random.default_rng(0)
    for users in (1, 2, 9, 10, 11, 30, 1000):
        for spread in (0, 1, 5):
            weight = np.exp(spread * rng.standard_normal(users)) * (rng.random(users) < 0.9)
            found = replay.bounded(weight)
            largest = found.max(initial=0)
            assert (found <= weight).all()
            assert (found[weight <= largest] == weight[weight <= largest]).all(), "only the largest are scaled down"
            n_weighted = (weight > 0).sum()
            if n_weighted > 1 / replay.MOST_SHARE:
                assert largest <= replay.MOST_SHARE * found.sum() * (1 + 1e-9)
            else:
                assert found[found > 0] == pytest.approx(largest)
            if weight.max() <= replay.MOST_SHARE * weight.sum():
                assert (found == weight).all()


# ------------------------------------------------------------------------------------------------ the same conditions

ELIGIBLE = [
    None,
    "v.maker is distinct from 'maker a' or viewer_id::text < '8'",
    "v.price is null or v.price < 12",
    "false",
]


def test_a_replayed_list_contains_only_videos_allowed_for_the_user(exploring: Connection, client: Client) -> None:
    """The replayed list equals the version's list under the conditions of the owner and the user."""
    db, rng = exploring, random.Random(7)
    users = LIKING[:8]
    for user in users[::2]:
        client.rpc(
            "authenticated",
            user,
            "set_choices",
            never_makers=rng.sample(["maker a", "maker b", "maker c"], 2),
            never_tag_ids=[str(tag) for tag in rng.sample(WORLD.tags, 3)],
            never_performer_ids=[str(who) for who in rng.sample(WORLD.performers, 2)],
        )
    for user in users:
        page(client, user)
    for condition in ELIGIBLE:
        db.execute("select two_tower.set_eligible_when(%s)", [condition])
        assert_lists_are_those_of_previews(db, users)
    found = replay.replay(db, "v1")
    assert (found["lists"], found["like_rate"]) == (len(users), None), "nothing may be shown to anybody"
    assert found["incumbent"]["version"] == "v2"


def assert_lists_are_those_of_previews(db: Connection, users: list[UUID]) -> None:
    log = replay.read_log(db, 30)
    assert len(log.lists) == len(users)
    allowed = replay.Allowed.read(db, log)
    ranker = replay.Ranker.read(db, "v1", log)
    numbers = {number: str(video) for video, number in log.videos.items()}
    for user in users:
        number = log.users[user]
        history = log.decisions[number]
        ranked = ranker.ranked(number, history, {video for _, video, _, _ in history})
        assert ranked is not None
        listed = [numbers[int(video)] for video in allowed.first(number, ranked, 20)]
        expected = column(
            db,
            """select video_id::text from two_tower.preview_recommendations(array[%s::uuid], 'v1')
            where reason = 'taste'""",
            user,
        )
        # Vectors are stored in half precision, which may swap neighbours in the order.
        assert len(set(listed) & set(expected)) >= len(expected) - 1, user
        every = [UUID(numbers[int(video)]) for video in ranked]
        assert set(listed) <= {str(v) for v in one(db, "select two_tower.allowed_videos(%s, %s)", user, every)}


# ------------------------------------------------------------------------------------------------ given vectors


def test_a_version_is_not_compared_with_given_vectors(
    exploring: Connection, client: Client, dsn: str, tmp_path: Path
) -> None:
    """They cannot rank for past histories, so they are neither replayed, nor compared with, nor required."""
    for user in LIKING[:3]:
        page(client, user)
    path = tmp_path / "videos.parquet"
    vectors = np.random.default_rng(0).standard_normal((len(WORLD.videos), DIM))
    pl.DataFrame({"video_id": [str(v) for v in WORLD.videos], "embedding": vectors.tolist()}).write_parquet(path)
    for words in (["upload-vectors", str(path), "--version", "theirs"], ["activate", "theirs"]):
        done = CliRunner().invoke(app, ["model", *words, "--dsn", dsn])
        assert done.exit_code == 0, done.output
    found = replay.replay(exploring, "v1")
    assert (found["incumbent"], found["difference"]) == (None, None)
    assert replay.verdict(found) == "no other version is active to compare it with"
    assert found["lists"] == 3
    with pytest.raises(UserError, match=r"theirs (has no vectors to rank with|cannot be replayed)"):
        replay.replay(exploring, "theirs")
    setting(exploring, "gate_max_replay_drop", 0.05)
    for version in ("v1", "theirs"):
        assert replay.evidence(exploring, version) is None
        report = one(exploring, "select two_tower.gate_model(%s, '{}')", version)
        assert not [reason for reason in report["reasons"] if "replay" in reason]
