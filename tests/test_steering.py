"""Steering of lists: promotions, freshness and exploration; each row says what moved it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from conftest import Connection
from test_serving import COLUMNS, ids
from world_fixtures import Client, column, make_world, one, rpc

pytestmark = pytest.mark.world

WORLD = make_world()
ME, OTHER = WORLD.usual, WORLD.users[6]
Rows = list[dict[str, Any]]
Ask = Callable[[int], Rows]
RANKED = ("popular", "newest", "trending")
"""Reasons of rows whose score is the inverse of their rank."""


def lists(client: Client) -> dict[str, Ask]:
    """Every list as a function of its length."""
    similar, liked = str(WORLD.videos[10]), [str(video) for video in sorted(WORLD.of(ME, "like"))[:3]]

    def ask(role: str, name: str, **arguments: Any) -> Ask:
        user = None if role == "anon" else ME
        return lambda limit: client.rpc(role, user, name, limit=limit, **arguments)

    return {
        "recommend_videos": ask("authenticated", "recommend_videos"),
        "filtered": ask("authenticated", "recommend_videos", makers=["maker a", "maker b"]),
        "recommend_from": ask("anon", "recommend_from", liked=liked),
        "similar_videos": ask("anon", "similar_videos", video_id=similar),
        "popular_videos_now": ask("anon", "popular_videos_now"),
        "trending_videos": ask("anon", "trending_videos"),
    }


def promote(db: Connection, kind: str, **values: Any) -> None:
    values = {name: Jsonb(value) if isinstance(value, dict) else value for name, value in values.items()}
    names = ", ".join(["kind", *values])
    marks = ", ".join(["%s"] * (len(values) + 1))
    db.execute(f"insert into two_tower.promotions ({names}) values ({marks})".encode(), [kind, *values.values()])


def setting(db: Connection, name: str, value: float) -> None:
    db.execute("update two_tower.settings set value = to_jsonb(%s::numeric) where name = %s", (value, name))


def plain(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["video_id"], row["reason"], row["propensity"]


def moved(
    base: Rows, factor: dict[str, tuple[float, float]], pins: dict[str, int], limit: int
) -> list[tuple[str, str]]:
    """Ids and reasons that a list should have by definition; ``factor`` is the boost or bury by id."""
    order = []
    for n, row in enumerate(base, 1):
        boost, bury = factor.get(row["video_id"], (1, 1))
        order.append((n * bury / boost, n, row))
    order.sort(key=lambda each: each[:2])
    rest = []
    for place, (_, n, row) in enumerate(order, 1):
        boost, bury = factor.get(row["video_id"], (1, 1))
        reason = row["reason"]
        if boost > bury and place < n:
            reason = "boosted"
        elif bury > boost and place > n:
            reason = "buried"
        if row["video_id"] not in pins:
            rest.append((row["video_id"], reason))
    places: dict[int, str] = {}
    for video, rank in sorted(pins.items(), key=lambda each: (each[1], each[0])):
        places[max([rank, *(at + 1 for at in places)])] = video
    found = []
    for place in range(1, limit + 1):
        if place in places:
            found.append((places[place], "pinned"))
        elif rest:
            found.append(rest.pop(0))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_promotions_move_videos_by_their_definition_in_every_list(seed: int, db: Connection, client: Client) -> None:
    rng = random.Random(seed)
    setting(db, "least_likers", 1)
    db.execute("select two_tower.update_popularity()")
    base = {name: ask(200) for name, ask in lists(client).items()}
    makers = dict(db.execute("select id::text, maker from videos").fetchall())
    on_all = set.intersection(*({row["video_id"] for row in rows} for rows in base.values()))
    boosts = [(rng.choice(sorted(on_all)), round(rng.uniform(1.1, 5), 2)) for _ in range(6)]
    buries = [(rng.choice(base["recommend_videos"][:20])["video_id"], round(rng.uniform(1.1, 3), 2)) for _ in range(4)]
    maker = rng.choice(["maker a", "maker b", "maker c"])
    kind = rng.choice(["boost", "bury"])
    strength = 1.5
    pins = {video: rng.randint(1, 6) for video in rng.sample(sorted(on_all), 2)}
    for video, by in boosts:
        promote(db, "boost", video_id=video, strength=by)
    for video, by in buries:
        promote(db, "bury", video_id=video, strength=by)
    promote(db, kind, videos={"makers": [maker], "no_tag_ids": []}, strength=strength)
    # Of pins at the same rank, the earliest comes first, which here is the order of their ids.
    for video, rank in sorted(pins.items()):
        promote(db, "pin", video_id=video, rank=rank)
    # None of these is current.
    promote(db, "pin", video_id=sorted(on_all)[0], rank=1, starts_at="2999-01-01")
    promote(db, "boost", video_id=sorted(on_all)[1], strength=10, starts_at="2020-01-01", ends_at="2021-01-01")

    def factor(video: str) -> tuple[float, float]:
        boost = [by for each, by in boosts if each == video]
        bury = [by for each, by in buries if each == video]
        if makers[video] == maker:
            (boost if kind == "boost" else bury).append(strength)
        return max(boost, default=1), max(bury, default=1)

    for name, ask in lists(client).items():
        expected = moved(base[name], {row["video_id"]: factor(row["video_id"]) for row in base[name]}, pins, 12)
        found = ask(12)
        assert [(row["video_id"], row["reason"]) for row in found] == expected, name
        assert [row["rank"] for row in found] == list(range(1, 13))
        assert {row["propensity"] for row in found} == {1}
        scores = {row["video_id"]: row["score"] for row in base[name] if row["reason"] not in RANKED}
        for row in found:
            inverse = row["reason"] == "pinned" or row["video_id"] not in scores
            assert row["score"] == pytest.approx(1 / row["rank"] if inverse else scores[row["video_id"]], abs=1e-6), (
                name
            )
        assert ask(12) == found


def test_promotions_without_current_effect_do_not_change_lists(db: Connection, client: Client) -> None:
    before = {name: ask(30) for name, ask in lists(client).items()}
    video = before["recommend_videos"][0]["video_id"]
    promote(db, "bury", video_id=video, strength=10, ends_at="2999-01-01", starts_at="2998-01-01")
    promote(db, "pin", video_id=uuid4(), rank=1)  # a deleted video
    promote(db, "pin", video_id=WORLD.unpublished_video, rank=1)
    setting(db, "exploration_share", 0.5)  # without a pool
    for name, ask in lists(client).items():
        found = ask(30)
        assert found == before[name], name
        assert all(row.keys() >= COLUMNS and row["propensity"] == 1 for row in found)


def test_pins_leave_out_videos_that_the_user_knows_or_excluded(db: Connection, client: Client) -> None:
    decided = sorted(WORLD.decided(ME) & set(WORLD.published))[0]
    promote(db, "pin", video_id=decided, rank=1)
    assert str(decided) not in ids(client.rpc("authenticated", ME, "recommend_videos"))
    assert client.rpc("authenticated", WORLD.no_decisions, "recommend_videos")[0]["video_id"] == str(decided)
    assert client.rpc("anon", None, "popular_videos_now")[0]["video_id"] == str(decided)
    assert str(decided) not in ids(client.rpc("anon", None, "popular_videos_now", exclude=[str(decided)]))
    assert str(decided) not in ids(client.rpc("anon", None, "recommend_from", liked=[str(decided)]))
    assert str(decided) not in ids(client.rpc("anon", None, "similar_videos", video_id=str(decided)))
    without = client.rpc("anon", None, "popular_videos_now", no_tag_ids=[str(tag) for tag in WORLD.tags], limit=50)
    assert (str(decided) in ids(without)) == (decided not in {video for video, _ in WORLD.video_tags})


def test_segments_apply_to_lists_that_start_from_a_passing_video(db: Connection, client: Client) -> None:
    pinned = next(video for video in WORLD.published if video not in WORLD.decided(ME) | WORLD.decided(OTHER))
    (liked, *_) = sorted(WORLD.of(ME, "like") - WORLD.decided(OTHER))
    tag = uuid4()
    db.execute("insert into tags (id, name) values (%s, 'of a segment')", (tag,))
    db.execute("insert into video_tags (video_id, tag_id) values (%s, %s)", (liked, tag))
    promote(db, "pin", video_id=pinned, rank=2, segment={"tag_ids": [str(tag)], "makers": None})

    def has(rows: Rows) -> bool:
        return rows[1]["video_id"] == str(pinned) and rows[1]["reason"] == "pinned"

    assert has(client.rpc("authenticated", ME, "recommend_videos"))
    assert not has(client.rpc("authenticated", OTHER, "recommend_videos"))
    assert not has(client.rpc("authenticated", WORLD.no_decisions, "recommend_videos"))
    assert has(client.rpc("anon", None, "recommend_from", liked=[str(liked)]))
    assert not has(client.rpc("anon", None, "recommend_from", liked=[str(WORLD.videos[11])]))
    assert has(client.rpc("anon", None, "similar_videos", video_id=str(liked)))
    assert not has(client.rpc("anon", None, "popular_videos_now"))


@pytest.mark.parametrize("half_life", [0.5, 30, 365, 3650])
def test_freshness_moves_newer_videos_up_by_their_age(half_life: float, db: Connection, client: Client) -> None:
    base = client.rpc("authenticated", ME, "recommend_videos", limit=200)
    some = [row["video_id"] for row in base]
    db.execute(
        """update videos set published_at = now() - %s * (abs(hashtext(id::text)) %% 8) * interval '0.5 days'
        where id = any (%s::uuid[])""",
        (half_life, some),
    )
    ages = {video: age * 0.5 for video, age in db.execute("select id::text, abs(hashtext(id::text)) % 8 from videos")}
    setting(db, "freshness_half_life_days", half_life)
    found = client.rpc("authenticated", ME, "recommend_videos", limit=15)
    keys = {video: n / (1 + 0.5 ** ages[video]) for n, video in enumerate(some, 1)}
    assert ids(found) == sorted(some, key=lambda video: (keys[video], some.index(video)))[:15]
    for place, row in enumerate(found):
        came_up = some.index(row["video_id"]) > place
        assert row["reason"] == ("fresh" if came_up and ages[row["video_id"]] < 1 else "taste")
    # Rows still name the like because of which they are in the list.
    because = client.rpc("authenticated", ME, "recommend_videos", limit=15, because=True)
    assert all(row["because_video_id"] for row in because if row["reason"] == "fresh")


# ------------------------------------------------------------------------------------------------ exploration


@pytest.fixture
def exploring(db: Connection) -> Connection:
    setting(db, "exploration_share", 0.25)
    assert one(db, "select two_tower.draw_exploration()") == len(WORLD.published)
    return db


def days(db: Connection, number: int) -> None:
    """Moves the draw of the pool to another day."""
    db.execute("update two_tower.exploration_pool set drawn_on = date '2030-01-01' + %s::int", (number,))


def test_explored_lists_are_stable_for_a_day_and_change_the_next(exploring: Connection, client: Client) -> None:
    base = {name: ask(20) for name, ask in lists(client).items()}
    for name, ask in lists(client).items():
        assert ask(20) == base[name]
        explored = [row for row in base[name] if row["reason"] == "explored"]
        assert bool(explored) == (name in ("recommend_videos", "filtered")), name
    with client.as_("authenticated", ME) as connection:
        connection.execute("set local datestyle = 'SQL, DMY'")
        assert rpc(connection, "recommend_videos") == base["recommend_videos"]
    days(exploring, 1)
    assert ids(lists(client)["recommend_videos"](20)) != ids(base["recommend_videos"])
    on_behalf = client.rpc("service_role", None, "recommend_videos", p_user_id=str(ME))
    assert ids(on_behalf) == ids(client.rpc("authenticated", ME, "recommend_videos"))


def test_explored_videos_are_new_to_the_user_and_pass_the_filter(exploring: Connection, client: Client) -> None:
    makers = dict(exploring.execute("select id::text, maker from videos").fetchall())
    published, decided = {str(v) for v in WORLD.published}, {str(v) for v in WORLD.decided(ME)}
    excluded = ids(client.rpc("authenticated", ME, "recommend_videos", limit=200))[:40]
    for day in range(12):
        days(exploring, day)
        rows = client.rpc("authenticated", ME, "recommend_videos", makers=["maker a"], exclude=excluded, limit=30)
        assert len(set(ids(rows))) == len(rows)
        for row in rows:
            assert makers[row["video_id"]] == "maker a"
            assert row["video_id"] in published - decided - set(excluded)


def test_propensities_equal_frequencies_over_many_days(db: Connection, client: Client) -> None:
    """Over many days, each place is explored as often as its propensity says, each video of the pool is there equally
    often, and weighing impressions by the inverse of their propensity gives the true total."""
    share, limit, n_days = 0.3, 10, 160
    base = ids(client.rpc("authenticated", ME, "recommend_videos", limit=limit))
    setting(db, "exploration_share", share)
    db.execute("select two_tower.draw_exploration()")
    # Pools larger and smaller than a list, without videos of the list and those that the user knows.
    known = {*base, *(str(video) for video in WORLD.decided(ME))}
    for size in (20, 6):
        rest = sorted(set(column(db, "select video_id::text from two_tower.exploration_pool")) - known)[:size]
        db.execute("delete from two_tower.exploration_pool where video_id <> all (%s::uuid[])", (rest,))
        by_place = [0] * limit
        by_video = dict.fromkeys(rest, 0)
        estimate = 0.0
        for day in range(n_days):
            days(db, day)
            for row in client.rpc("authenticated", ME, "recommend_videos", limit=limit):
                place = row["rank"] - 1
                if row["reason"] == "explored":
                    by_place[place] += 1
                    by_video[row["video_id"]] += 1
                    assert row["propensity"] == pytest.approx(share / size)
                    estimate += 1 / row["propensity"]
                else:
                    assert row["video_id"] == base[place]
                    assert row["propensity"] == pytest.approx(1 - share if place < size else 1)
        places = min(size, limit)
        for place, count in enumerate(by_place):
            expected = n_days * share if place < places else 0
            assert abs(count - expected) <= 4.5 * (n_days * share * (1 - share)) ** 0.5 * (place < places), place
        expected = n_days * places * share / size
        assert all(abs(count - expected) <= 5 * expected**0.5 for count in by_video.values())
        assert estimate == pytest.approx(n_days * places * size, rel=0.2)


def test_next_videos_explores_and_logs_propensities(exploring: Connection, client: Client) -> None:
    pages = [client.rpc("authenticated", ME, "next_videos", limit=20) for _ in range(3)]
    seen = [video for page in pages for video in ids(page)]
    assert len(set(seen)) == len(seen) == 60
    kept = exploring.execute(
        "select video_id::text, reason, propensity from two_tower.impressions where user_id = %s", (ME,)
    ).fetchall()
    assert sorted(kept) == sorted(plain(row) for page in pages for row in page)
    assert {"explored", "taste"} == {reason for _, reason, _ in kept}


def test_each_page_explores_by_its_own_chance(exploring: Connection, client: Client) -> None:
    """What lost its place on the first page may have it on the next, as the propensities say."""
    setting(exploring, "exploration_share", 0.3)
    explored = again = 0
    for day in range(60):
        days(exploring, day)
        with client.as_("authenticated", ME) as connection, connection.transaction(force_rollback=True):
            first, second = (rpc(connection, "next_videos", limit=10) for _ in range(2))
            without = rpc(connection, "recommend_videos", limit=10, exclude=[None, *ids(first)])
        assert ids(without) == ids(second)
        for one_row, next_row in zip(first, second, strict=True):
            explored += one_row["reason"] == "explored"
            again += one_row["reason"] == next_row["reason"] == "explored"
        turned = client.rpc(
            "authenticated", ME, "recommend_videos", limit=10, exclude=[*ids(first)[::-1], ids(first)[0]]
        )
        assert ids(turned) == ids(second), "the same videos, written otherwise"
    assert abs(again - explored * 0.3) <= 4.5 * (explored * 0.3 * 0.7) ** 0.5


def test_pinned_places_are_not_explored(exploring: Connection, client: Client) -> None:
    video = next(v for v in WORLD.published if v not in WORLD.decided(ME))
    for rank in (1, 2, 3):
        promote(exploring, "pin", video_id=video if rank == 1 else WORLD.published[-rank], rank=rank)
    for day in range(10):
        days(exploring, day)
        first = client.rpc("authenticated", WORLD.no_decisions, "recommend_videos")[0]
        assert plain(first) == (str(video), "pinned", 1)


def test_the_exploration_pool_is_drawn_daily_of_the_least_shown_videos(db: Connection, client: Client) -> None:
    shown = client.rpc("authenticated", ME, "next_videos", limit=30)
    assert one(db, "select two_tower.draw_exploration()") == 0
    setting(db, "exploration_share", 0.1)
    with client.as_("service_role") as connection:
        connection.execute("select two_tower.draw_exploration()")
    counts = dict(db.execute("select video_id::text, shown from two_tower.exploration_pool").fetchall())
    assert {video for video, times in counts.items() if times} == set(ids(shown))
    before = db.execute("select * from two_tower.exploration_pool").fetchall()
    client.rpc("authenticated", ME, "next_videos", limit=30)
    db.execute("select two_tower.update_popularity()")
    assert db.execute("select * from two_tower.exploration_pool").fetchall() == before
    db.execute("update two_tower.exploration_pool set drawn_on = drawn_on - 1")
    db.execute("select two_tower.update_popularity()")
    assert one(db, "select sum(shown) from two_tower.exploration_pool") == 60
    setting(db, "exploration_share", 0)
    db.execute("select two_tower.update_popularity()")
    assert one(db, "select count(*) from two_tower.exploration_pool") == 0


# ------------------------------------------------------------------------------------------------ refusals

VIDEO = str(WORLD.published[0])
PIN = {"kind": "pin", "video_id": VIDEO}
BURY = {"kind": "bury", "video_id": VIDEO}
BAD_ROWS: dict[str, list[dict[str, Any]]] = {
    "promotions_boost_bury_or_pin": [{"kind": kind, "video_id": VIDEO} for kind in ("raise", "", "PIN")],
    "promotions_one_video_or_a_filter": [
        {"kind": "boost"},
        {"kind": "boost", "video_id": VIDEO, "videos": {"makers": ["a"]}},
        # An empty filter is invalid.
        {"kind": "boost", "videos": {}},
        {"kind": "boost", "videos": {"makers": []}},
    ],
    "promotions_pins_have_a_video_and_a_rank": [
        {"kind": "boost", "video_id": VIDEO, "rank": 3},
        PIN,
        {"kind": "pin", "videos": {"makers": ["a"]}, "rank": 1},
    ],
    "promotions_rank_from_1_to_200": [PIN | {"rank": rank} for rank in (0, -1, 201, 10**9, -(10**9))],
    "promotions_strength_above_1_up_to_10": [BURY | {"strength": by} for by in (1, 0, -3, 10.5, "NaN", "Infinity")],
    "promotions_end_after_they_start": [
        BURY | {"starts_at": starts, "ends_at": ends}
        for starts, ends in (
            ("2026-02-01", "2026-01-01"),
            ("2026-02-01", "2026-02-01"),
            ("2026-02-01", "-infinity"),
            ("infinity", "2026-02-01"),
        )
    ],
}
"""Constraint, whose name says what is wrong → rows that it refuses."""
BAD_VALUES: list[tuple[dict[str, Any], str]] = [
    (PIN | {"rank": 10**12}, "22003"),
    (PIN | {"rank": "first"}, "22P02"),
    (BURY | {"strength": "1e40"}, "22003"),
    (BURY | {"strength": None}, "23502"),
    (BURY | {"starts_at": None}, "23502"),
    (BURY | {"starts_at": "tomorrow or so"}, "22007"),
    ({"kind": "boost", "video_id": "a video"}, "22P02"),
    ({"kind": "boost", "videos": Jsonb("makers")}, "22023"),
    ({"kind": "boost", "videos": Jsonb([{"makers": ["a"]}])}, "22023"),
]
BAD_FILTERS: list[dict[str, Any]] = [
    {"maker": ["a"]},
    {"among": [VIDEO]},
    {"tag_ids": ["x"]},
    {"tag_ids": VIDEO},
    {"price_min": "cheap"},
    {"released_after": "soonish"},
    {"duration_max": 1e30},
    {"makers": [str(n) for n in range(101)]},
]


def test_promotions_that_cannot_apply_are_refused(db: Connection) -> None:
    for constraint, rows in BAD_ROWS.items():
        for row in rows:
            with pytest.raises(psycopg.errors.CheckViolation) as violated:
                promote(db, **row)
            assert violated.value.diag.constraint_name == constraint, row
    refused = list(BAD_VALUES)
    for bad in BAD_FILTERS:
        refused += [({"kind": "boost", "videos": bad}, "22023")]
        refused += [({"kind": "boost", "video_id": VIDEO, "segment": bad}, "22023")]
    for row, state in refused:
        with pytest.raises(psycopg.Error) as caught:
            promote(db, **row)
        assert caught.value.sqlstate == state, (row, caught.value)
    assert one(db, "select count(*) from two_tower.promotions") == 0


NOTHING = {"makers": ["nobody who makes anything"]}
GONE = [uuid4(), WORLD.unpublished_video, WORLD.future_video]


def odd_promotions(seed: int) -> list[dict[str, Any]]:
    """Valid but strange promotions: several of one video, of no video, at the same rank, for nobody, without end."""
    rng = random.Random(seed)
    some = rng.sample(WORLD.published, 6)
    always = {"starts_at": "-infinity", "ends_at": "infinity"}
    rows: list[dict[str, Any]] = [
        *({"kind": "pin", "video_id": video, "rank": 2} for video in some[:3]),
        *({"kind": "pin", "video_id": some[0], "rank": rank} for rank in (1, 5, 200)),
        *({"kind": kind, "video_id": some[3], "strength": 10} for kind in ("boost", "bury")),
        *({"kind": "pin", "video_id": video, "rank": rng.randint(1, 200)} for video in GONE),
        *({"kind": rng.choice(["boost", "bury"]), "video_id": video} for video in GONE),
        {"kind": "pin", "video_id": some[4], "rank": 1, "segment": NOTHING},
        {"kind": "boost", "videos": NOTHING},
        {"kind": "bury", "videos": {"price_min": 0}, "strength": 10},
        {"kind": "boost", "videos": {"filters": ["cheap"]}, "segment": {"filters": ["cheap"]}},
        {"kind": "boost", "videos": {"no_makers": ["maker a"]}, "strength": 10},
        *({"kind": "pin", "video_id": video, "rank": rank} for rank, video in enumerate(WORLD.published[:200], 1)),
    ]
    return [row | rng.choice([{}, always]) for row in rng.sample(rows, rng.choice([3, 8, len(rows)]))]


def test_a_pin_beyond_the_end_of_a_list_leaves_no_gap_in_it(db: Connection, client: Client) -> None:
    """The first videos of the list are pinned at ranks after its end."""
    setting(db, "least_likers", 1)
    asked = lists(client)
    diverse = client.rpc("authenticated", ME, "recommend_videos", limit=12, diversity=0.5)
    base = {name: ids(ask(30)) for name, ask in asked.items()}
    first = {video for found in base.values() for video in found[:6]} | set(ids(diverse)[:6])
    for rank, video in enumerate(sorted(first), 31):
        promote(db, "pin", video_id=video, rank=rank)
    for name, ask in asked.items():
        found = ids(ask(12))
        assert len(found) == 12, name
        assert not set(found) & first, name
        assert found == ids(ask(30))[:12], name
    assert len(client.rpc("authenticated", ME, "recommend_videos", limit=12, diversity=0.5)) == 12


def test_lists_stay_valid_under_any_promotions(db: Connection, client: Client) -> None:
    """At least as long as before, with visible videos that pass the filter, each once, and ranks from 1 on."""
    setting(db, "freshness_half_life_days", 0.001)
    makers = dict(db.execute("select id::text, maker from videos").fetchall())
    published = {str(video) for video in WORLD.published}
    asked = lists(client)
    lengths = {(name, limit): len(ask(limit)) for name, ask in asked.items() for limit in (1, 12, 200)}
    for seed in range(5):
        db.execute("delete from two_tower.promotions")
        db.execute("select two_tower.set_filter('cheap', 'v.price < 5')")
        said = odd_promotions(seed)
        for row in said:
            promote(db, **row)
        if seed % 2:  # a filter that was removed since
            db.execute("select two_tower.set_filter('cheap', null)")
        pins = [row for row in said if row["kind"] == "pin"]
        nobodys = {str(pin["video_id"]) for pin in pins if "segment" in pin}
        nobodys -= {str(pin["video_id"]) for pin in pins if "segment" not in pin}
        for (name, limit), length in lengths.items():
            rows = asked[name](limit)
            found = ids(rows)
            assert length <= len(rows) <= limit, (seed, name, limit)
            assert len(set(found)) == len(found), (seed, name, limit)
            assert set(found) <= published, (seed, name)
            assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
            assert all(row["score"] is not None and 0 < row["propensity"] <= 1 for row in rows)
            assert not {row["video_id"] for row in rows if row["reason"] == "pinned"} & nobodys
            if name == "filtered":
                assert {makers[video] for video in found} <= {"maker a", "maker b"}


def test_promoted_rows_keep_their_because(db: Connection, client: Client) -> None:
    """In every list with ``because``, moved rows have the same value as without promotions."""
    setting(db, "least_likers", 1)
    liked = [str(video) for video in sorted(WORLD.of(ME, "like"))[:3]]

    def listing(name: str, role: str, limit: int, **arguments: Any) -> Rows:
        user = ME if role == "authenticated" else None
        with client.as_(role, user) as connection, connection.transaction(force_rollback=True):
            return rpc(connection, name, limit=limit, because=True, **arguments)

    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("recommend_videos", "authenticated", {}),
        ("recommend_videos", "service_role", {"p_user_id": str(ME)}),
        ("next_videos", "authenticated", {}),
        ("recommend_from", "anon", {"liked": liked}),
        ("recommend_from", "authenticated", {"liked": liked}),
    ]
    plain_rows = [listing(name, role, 200, **given) for name, role, given in calls]
    expected = [{row["video_id"]: row["because_video_id"] for row in rows} for rows in plain_rows]
    assert all(any(because.values()) for because in expected)
    everywhere = set.intersection(*({v for v, like in because.items() if like} for because in expected))
    for at, video in enumerate(sorted(everywhere)):
        promote(db, "boost" if at % 2 else "bury", video_id=video, strength=2)
    setting(db, "freshness_half_life_days", 3650)
    told = set()
    for (name, role, given), because in zip(calls, expected, strict=True):
        for row in listing(name, role, 150, **given):
            if row["reason"] in ("boosted", "buried", "fresh"):
                assert row["because_video_id"] == because[row["video_id"]], (name, role, row)
                told.add(row["reason"])
    assert told == {"boosted", "buried", "fresh"}


def test_clients_neither_read_nor_write_what_steers_them(exploring: Connection, client: Client) -> None:
    for role, user in (("anon", None), ("authenticated", ME)):
        for statement in (
            "select * from two_tower.promotions",
            "select * from two_tower.exploration_pool",
            "insert into two_tower.promotions (kind, video_id) values ('boost', gen_random_uuid())",
            "delete from two_tower.promotions",
            "select two_tower.draw_exploration()",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), client.as_(role, user) as connection:
                connection.execute(statement)
    with client.as_("service_role") as connection:
        connection.execute("insert into two_tower.promotions (kind, video_id) values ('boost', gen_random_uuid())")
        connection.execute(
            "insert into two_tower.promotions (kind, videos) values ('bury', '{\"makers\": [\"maker a\"]}')"
        )
        connection.execute("update two_tower.promotions set ends_at = now() + interval '1 day'")
        connection.execute("delete from two_tower.promotions")
