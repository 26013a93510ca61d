"""Lists for visitors who are not signed in, and how their likes become decisions at sign-in."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from psycopg import errors

from conftest import Connection
from test_serving import BECAUSE, COLUMNS, check, ids
from world_fixtures import NOBODY, Client, column, copy_rows, ident, make_world, one

pytestmark = pytest.mark.world

WORLD = make_world()
PUBLISHED = [str(v) for v in WORLD.published]
LISTS: list[tuple[str, dict[str, Any]]] = [
    ("recommend_from", {"liked": PUBLISHED[:3]}),
    ("recommend_from", {"liked": []}),
    ("popular_videos_now", {}),
    *(("trending_videos", {"window": window}) for window in ("1 day", "7 days", "30 days")),
]
Rows = list[dict[str, Any]]


def visit(client: Client, name: str, role: str = "anon", **arguments: Any) -> Rows:
    rows = client.rpc(role, None, name, **arguments)
    check(rows, COLUMNS | BECAUSE if name == "recommend_from" else COLUMNS)
    return rows


def least(db: Connection, likers: int) -> None:
    db.execute("update two_tower.settings set value = to_jsonb(%s) where name = 'least_likers'", [likers])


def like(db: Connection, video: str, users: Iterable[UUID], age: timedelta) -> None:
    for user in users:
        db.execute(
            """insert into user_video_decisions values (%s, %s, 'like', now() - %s)
            on conflict (user_id, video_id) do update set decision_type = 'like', created_at = excluded.created_at""",
            [user, video, age],
        )


def likers(db: Connection) -> dict[str, int]:
    """Number of likers of each video, from the decisions."""
    query = "select video_id::text, count(*) from user_video_decisions where decision_type = 'like' group by 1"
    return dict(db.execute(query.encode()).fetchall())


# ------------------------------------------------------------------------------------------------ a session


@pytest.mark.parametrize("count", [1, 3, 40])
def test_a_session_gets_the_list_of_a_user_with_the_same_likes(count: int, db: Connection, client: Client) -> None:
    least(db, 1)
    counted = {str(v) for v in column(db, "select video_id from two_tower.video_popularity")}
    liked = [v for v in PUBLISHED if v in counted][:count]
    user = ident("visitor", count)
    db.execute("insert into auth.users (id) values (%s)", [user])
    decisions = [(user, v, "like") for v in liked]
    copy_rows(db, "public.user_video_decisions (user_id, video_id, decision_type)", decisions)
    theirs = client.rpc("authenticated", user, "recommend_videos", limit=50)
    mine = visit(client, "recommend_from", liked=liked, limit=50)
    if one(db, "select user_engine from two_tower.model_versions") == "sql":
        assert ids(mine) == ids(theirs)
        assert [row["score"] for row in mine] == pytest.approx([row["score"] for row in theirs], abs=1e-3)
    assert {row["reason"] for row in mine} == {"taste"}
    assert not set(ids(mine)) & set(liked)


def test_nopes_of_a_session_count(db: Connection, client: Client) -> None:
    least(db, 1)
    noped = sorted(likers(db).keys() & set(PUBLISHED[10:]))[:20]
    without = visit(client, "recommend_from", liked=PUBLISHED[:3], limit=200, exclude=noped)
    nopes = visit(client, "recommend_from", liked=PUBLISHED[:3], noped=noped, limit=200)
    assert not set(ids(nopes)) & set(noped)
    if one(db, "select user_engine from two_tower.model_versions") == "sql":
        assert [row["score"] for row in without] != [row["score"] for row in nopes]


@pytest.mark.parametrize(
    "nothing",
    [{"liked": []}, {"liked": None}, {"liked": [None]}, {"liked": [str(NOBODY)]}, {"liked": [], "noped": None}],
)
def test_a_session_without_likes_gets_popular_videos(nothing: dict[str, Any], client: Client) -> None:
    rows = visit(client, "recommend_from", **nothing)
    assert len(rows) == 20
    assert ids(rows) == ids(visit(client, "popular_videos_now"))


@pytest.mark.parametrize("video", [WORLD.unpublished_video, WORLD.future_video])
def test_videos_hidden_from_visitors_reveal_nothing(video: UUID, client: Client) -> None:
    expected = visit(client, "recommend_from", liked=PUBLISHED[:2])
    assert visit(client, "recommend_from", liked=[*PUBLISHED[:2], str(video)])[0]["score"] == expected[0]["score"]
    assert {row["reason"] for row in visit(client, "recommend_from", liked=[str(video)])} <= {"popular", "newest"}


def test_the_length_of_a_session_is_limited(client: Client) -> None:
    assert len(visit(client, "recommend_from", liked=[str(NOBODY)] * 300, noped=PUBLISHED[:100] * 2)) == 20
    with pytest.raises(errors.InvalidParameterValue, match="500 videos together, not 501"):
        visit(client, "recommend_from", liked=[str(NOBODY)] * 300, noped=[str(NOBODY)] * 201)


# ------------------------------------------------------------------------------------------------ few likers


def test_rarely_liked_videos_are_placed_only_by_content(db: Connection, client: Client) -> None:
    """Whoever likes the video, and whatever else they like, its learnt place and taste affect no list."""
    least(db, 1_000_000)
    video = next(v for v in PUBLISHED[3:] if v in likers(db))
    asked: list[tuple[str, dict[str, Any]]] = [
        ("similar_videos", {"video_id": video, "limit": 100}),
        ("recommend_from", {"liked": [video], "limit": 100}),
        ("recommend_from", {"liked": [], "noped": [video], "limit": 100}),
    ]
    before = [visit(client, name, **arguments) for name, arguments in asked]
    assert {row["reason"] for row in before[0]} == {"similar"}
    # Another place and another taste, as if others had liked it.
    for table, values in (("video_embeddings", "embedding"), ("video_tastes", "liked, noped")):
        db.execute(
            f"""update two_tower.{table} set ({values}) = (
                select {values} from two_tower.{table} where video_id <> %(v)s and {values.split(",")[0]} is not null
                order by video_id limit 1
            ) where video_id = %(v)s""".encode(),
            {"v": video},
        )
    assert [visit(client, name, **arguments) for name, arguments in asked] == before
    least(db, 1)
    assert visit(client, "similar_videos", video_id=video, limit=100) != before[0]


@pytest.mark.parametrize("number", [1, 2, 3, 5, 1000])
def test_videos_with_fewer_likers_than_the_setting_are_not_popular(number: int, db: Connection, client: Client) -> None:
    least(db, number)
    rows = visit(client, "popular_videos_now", limit=200)
    assert len(rows) == len(PUBLISHED)
    counted = likers(db)
    known = {v for v, count in counted.items() if count >= number} & set(PUBLISHED)
    assert {row["video_id"] for row in rows if row["reason"] == "popular"} == known
    # Videos with fewer likers are where they would be without likes.
    dates = dict(db.execute("select id::text, published_at from videos").fetchall())
    newest = [row["video_id"] for row in rows if row["reason"] == "newest"]
    expected = sorted(set(PUBLISHED) - known, key=lambda v: (dates[v], v), reverse=True)
    assert [dates[v] for v in newest] == [dates[v] for v in expected[: len(newest)]]
    assert [row["score"] for row in rows] == pytest.approx([1 / row["rank"] for row in rows], rel=1e-5)


# ------------------------------------------------------------------------------------------------ trends


@pytest.mark.parametrize("window", ["1 day", "24 hours", "7 days", "30 days"])
def test_trends_count_likers_within_their_window(window: str, db: Connection, client: Client) -> None:
    hour, day = timedelta(hours=1), timedelta(days=1)
    ages = {PUBLISHED[0]: hour, PUBLISHED[1]: 2 * day, PUBLISHED[2]: 20 * day, PUBLISHED[3]: 31 * day}
    for number, (video, age) in enumerate(ages.items()):
        like(db, video, WORLD.users[: 10 + number], age)
    like(db, PUBLISHED[4], WORLD.users[:4], hour)  # too few
    like(db, PUBLISHED[5], WORLD.users[:30], timedelta(days=-400))  # of the future
    db.execute("select two_tower.update_popularity()")
    rows = visit(client, "trending_videos", window=window, limit=60)
    within = {"1 day": 1, "24 hours": 1, "7 days": 2, "30 days": 3}[window]
    trending = [row["video_id"] for row in rows if row["reason"] == "trending"]
    assert trending == PUBLISHED[:within][::-1], "most people first"
    assert len(rows) == 60
    assert [row["score"] for row in rows] == pytest.approx([1 / row["rank"] for row in rows], rel=1e-5)


def test_a_video_without_recent_likes_stops_trending(db: Connection, client: Client) -> None:
    like(db, PUBLISHED[0], WORLD.users[:20], timedelta(hours=1))
    db.execute("select two_tower.update_popularity()")
    assert visit(client, "trending_videos")[0]["reason"] == "trending"
    db.execute("delete from user_video_decisions where video_id = %s", [PUBLISHED[0]])
    db.execute("select two_tower.update_popularity()")
    assert one(db, "select count(*) from two_tower.video_trends") == 0
    assert {row["reason"] for row in visit(client, "trending_videos")} <= {"popular", "newest"}


@pytest.mark.parametrize(
    "window", [None, "0", "2 days", "-1 day", "1 day 1 second", "100 years", "30 days 00:00:00.000001"]
)
def test_other_windows_than_1_7_and_30_days_are_refused(window: str | None, client: Client) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="window must be 1 day, 7 days or 30 days"):
        visit(client, "trending_videos", window=window)


# ------------------------------------------------------------------------------------------------ every list


@pytest.mark.parametrize(("name", "arguments"), LISTS)
def test_a_list_for_visitors_is_the_same_for_all_and_stores_nothing(
    name: str, arguments: dict[str, Any], db: Connection, client: Client
) -> None:
    rows = visit(client, name, **arguments)
    assert len(rows) == 20
    assert visit(client, name, **arguments) == rows
    as_user = client.rpc("authenticated", WORLD.many, name, **arguments)
    for row in (*rows, *as_user):
        row.pop("list_id")
    assert as_user == rows
    assert one(db, "select provolatile::text from pg_proc where proname = %s", name) == "s"
    assert one(db, "select count(*) from two_tower.pending_users") == 0


@pytest.mark.parametrize(("name", "arguments"), LISTS)
def test_lists_for_visitors_respect_tags_and_exclusions(name: str, arguments: dict[str, Any], client: Client) -> None:
    tag = max(WORLD.tags, key=lambda t: len(WORLD.tagged(t)))
    tagged = {str(v) for v in WORLD.tagged(tag)} & set(PUBLISHED) - set(arguments.get("liked") or ())
    rows = visit(client, name, **arguments, limit=200, tag_ids=[str(tag)])
    assert set(ids(rows)) == tagged
    out = ids(rows)[:5]
    assert set(ids(visit(client, name, **arguments, limit=200, tag_ids=[str(tag)], exclude=out))) == tagged - set(out)


@pytest.mark.sampled
@pytest.mark.parametrize(("name", "arguments"), LISTS)
@pytest.mark.parametrize("bad", [{"limit": 0}, {"limit": 201}, {"limit": None}, {"tag_ids": [str(NOBODY)] * 101}])
def test_arguments_of_lists_for_visitors_have_bounds(
    name: str, arguments: dict[str, Any], bad: dict[str, Any], client: Client
) -> None:
    with pytest.raises(errors.InvalidParameterValue):
        client.rpc("anon", None, name, **arguments, **bad)


@pytest.mark.parametrize(("name", "arguments"), LISTS)
def test_a_video_that_was_unpublished_is_in_no_list(
    name: str, arguments: dict[str, Any], db: Connection, client: Client
) -> None:
    first = ids(visit(client, name, **arguments))[0]
    db.execute("update videos set published_at = null where id = %s", [first])
    rows = visit(client, name, **arguments)
    assert first not in ids(rows)
    assert len(rows) == 20


# ------------------------------------------------------------------------------------------------ sign-in


def claim(client: Client, user: UUID | None, **session: Any) -> int:
    (count,) = client.rpc("authenticated", user, "claim_session", **session)
    return int(count)


def test_claiming_a_session_writes_its_decisions_once(db: Connection, client: Client) -> None:
    user = WORLD.no_decisions
    session = {"liked": PUBLISHED[:5], "noped": PUBLISHED[3:8]}
    assert [claim(client, user, **session) for _ in range(3)] == [8, 0, 0]
    kept = dict(
        db.execute(
            "select video_id::text, decision_type from user_video_decisions where user_id = %s", [user]
        ).fetchall()
    )
    assert kept == dict.fromkeys(PUBLISHED[:5], "like") | dict.fromkeys(PUBLISHED[5:8], "nope")
    assert column(db, "select distinct user_id from two_tower.pending_users") == [user]
    assert client.rpc("authenticated", user, "recommend_videos")[0]["reason"] == "taste"


def test_claiming_a_session_keeps_existing_decisions(db: Connection, client: Client) -> None:
    user = WORLD.only_nopes
    decided = [str(v) for v in WORLD.decided(user)]
    new = next(v for v in PUBLISHED if v not in decided)
    assert claim(client, user, liked=[*decided, new]) == 1
    assert set(column(db, "select decision_type from user_video_decisions where user_id = %s", user)) == {
        "nope",
        "like",
    }
    assert one(db, "select count(*) from user_video_decisions where user_id = %s and decision_type = 'nope'", user) == 4


@pytest.mark.parametrize(
    "nothing",
    [{"liked": []}, {"liked": None}, {"liked": None, "noped": None}, {"liked": [None]}, {"liked": [str(NOBODY)]}],
)
def test_claiming_an_empty_session_claims_nothing(nothing: dict[str, Any], client: Client) -> None:
    assert claim(client, WORLD.no_decisions, **nothing) == 0


def test_claiming_a_session_needs_a_user_and_is_limited(client: Client) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="not 501"):
        claim(client, WORLD.no_decisions, liked=[str(NOBODY)] * 501)
    with pytest.raises(errors.InvalidAuthorizationSpecification):
        claim(client, None, liked=PUBLISHED[:1])
    with pytest.raises(errors.ForeignKeyViolation):
        claim(client, NOBODY, liked=PUBLISHED[:1])


@pytest.mark.parametrize("kind", ["varchar(20)", "enum"])
def test_sessions_can_be_claimed_with_any_type_of_decisions(kind: str, db: Connection, client: Client) -> None:
    constraint = one(
        db,
        """select quote_ident(conname) from pg_constraint
        where conrelid = 'user_video_decisions'::regclass and contype = 'c' and conname ~ 'decision_type'""",
    )
    db.execute(f"alter table user_video_decisions drop constraint {constraint}".encode())
    if kind == "enum":
        db.execute("create type kind as enum ('like', 'nope', 'skip')")
        kind = "public.kind"
    change = f"alter column decision_type type {kind} using decision_type::text::{kind}"
    db.execute(f"alter table user_video_decisions {change}".encode())
    assert claim(client, WORLD.no_decisions, liked=PUBLISHED[:2], noped=PUBLISHED[2:3]) == 3


# ------------------------------------------------------------------------------------------------ results


def test_no_list_of_a_visitor_ranks_by_the_likes_of_few(db: Connection, client: Client) -> None:
    enough = {video for video, count in likers(db).items() if count >= 5}
    lists = [visit(client, "recommend_from", liked=liked, limit=200) for liked in ([], PUBLISHED[:1])]
    lists.append(visit(client, "similar_videos", video_id=PUBLISHED[0], limit=200))
    for rows in lists:
        assert {row["video_id"] for row in rows if row["reason"] == "popular"} <= enough
    assert any(row["reason"] == "newest" for row in lists[0])


@pytest.mark.parametrize("diversity", [0, 0.5])
def test_a_filter_that_no_video_passes_gives_an_empty_list(diversity: float, client: Client) -> None:
    nothing: dict[str, Any] = {"diversity": diversity, "makers": ["nobody"]}
    assert visit(client, "recommend_from", liked=PUBLISHED[:4], **nothing) == []
    assert visit(client, "similar_videos", video_id=PUBLISHED[0], **nothing) == []
    assert client.rpc("authenticated", WORLD.usual, "recommend_videos", **nothing) == []


def test_videos_that_a_policy_hides_from_visitors_reveal_nothing(db: Connection, client: Client) -> None:
    least(db, 1)
    video = next(v for v in PUBLISHED if likers(db).get(v, 0) > 2)
    assert visit(client, "recommend_from", liked=[video])[0]["reason"] == "taste"
    db.execute(f"create policy hidden on videos as restrictive for select to anon using (id <> '{video}')".encode())
    assert {row["reason"] for row in visit(client, "recommend_from", liked=[video])} <= {"popular", "newest"}
