"""What the page asks and does, against the database and without a browser."""

from __future__ import annotations

import base64
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4
from xml.etree import ElementTree

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from conftest import Connect, Connection, NewDatabase
from two_tower.cli.ui import THEME
from two_tower.errors import GateFailed, UserError
from two_tower.ids import user_uuid
from two_tower.lifecycle import registry
from two_tower.server.migrate import migrate
from two_tower.ui import actions, look, pictures, queries
from two_tower.ui.actions import Promotion
from two_tower.ui.queries import sizes
from world_fixtures import (
    NOBODY,
    Client,
    column,
    make_world,
    one,
    random_model,
    refresh,
    register,
    schema_of,
    tiny_model,
)

pytestmark = pytest.mark.world

WORLD = make_world()
USER = WORLD.usual
LIKES = [(u, v) for u, v, decision, _ in WORLD.decisions if decision == "like"]
FIELDS = {"maker": 3, "label": 4, "series": 5, "source": 6}
"""Positions of these columns in the world's rows of videos."""


@pytest.fixture
def viewer(dsn: str) -> Iterator[queries.Connection]:
    with queries.viewer(dsn) as connection:
        yield connection


@pytest.fixture
def login(dsn: str, db: Connection) -> Iterator[str]:
    """A DSN whose login may only read."""
    name = f"{urlsplit(dsn).path.removeprefix('/')}_looker"
    db.execute(f"create role {name} login in role two_tower_viewer".encode())
    yield make_conninfo(dsn, user=name)
    db.execute(f"drop role {name}".encode())


def values_of(kind: str) -> list[tuple[UUID, str]]:
    """(video, value) of an attribute, as the world has it."""
    if kind in ("tag", "performer"):
        ids = WORLD.tags if kind == "tag" else WORLD.performers
        links = WORLD.video_tags if kind == "tag" else WORLD.video_performers
        return [(video, f"{kind} {ids.index(id_)}") for video, id_ in links]
    return [(row[0], row[FIELDS[kind]]) for row in WORLD.video_rows if row[FIELDS[kind]]]


# ------------------------------------------------------------------------------------------------- who looks


@pytest.mark.parametrize(
    "write",
    [
        "insert into public.tags (name) values ('new')",
        "delete from public.user_video_decisions",
        "update two_tower.settings set value = '1'",
        "select two_tower.activate_model('v1')",
        "select public.embed_user()",
        "create temp table x (a int)",
    ],
)
def test_the_viewer_writes_nothing(write: str, viewer: queries.Connection) -> None:
    with pytest.raises((psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.InsufficientPrivilege)):
        viewer.execute(write.encode())


def test_the_viewer_cannot_read_private_tables(viewer: queries.Connection) -> None:
    for query in ("table auth.users", "select content from two_tower.model_files", "table two_tower.reviews"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), viewer.transaction():
            viewer.execute(query.encode())


def test_a_database_that_is_not_migrated_is_refused_with_the_remedy(database: NewDatabase) -> None:
    with pytest.raises(UserError, match="not migrated") as caught, queries.viewer(database(empty=True)):
        pass
    assert caught.value.hint == "two-tower migrate"


def test_a_login_without_the_viewers_role_is_refused_with_the_grant(dsn: str) -> None:
    with (
        pytest.raises(UserError, match="authenticator may not switch to the role two_tower_viewer") as caught,
        queries.viewer(make_conninfo(dsn, user="authenticator")),
    ):
        pass
    assert 'grant two_tower_viewer to "authenticator";' in str(caught.value.hint)


def test_queries_in_one_block_share_a_connection_and_leave_no_setting_behind(dsn: str, db: Connection) -> None:
    session = "select unnest(array[pg_backend_pid()::text, current_user::text, current_setting('statement_timeout')])"
    pids = []
    with queries.Viewers() as viewers:
        for _ in range(3):
            with viewers.viewer(dsn) as connection:
                pid, *state = column_of(connection, session)
                pids.append(pid)
                assert state == [queries.ROLE, "30s"]
            after = column_of(connection, session)
            assert after[1] != queries.ROLE
            assert after[2] == "0"
        assert len(set(pids)) == 1
        # A broken connection is replaced.
        assert one(db, "select pg_terminate_backend(%s, 30000)", int(pids[0]))
        with pytest.raises(psycopg.OperationalError), viewers.viewer(dsn):
            pass
        with viewers.viewer(dsn) as connection:
            assert column_of(connection, session)[0] != pids[0]
    assert connection.closed


def test_migrating_back_removes_the_viewers_rights(dsn: str, db: Connection) -> None:
    held = """select count(*) from pg_shdepend where refobjid = 'two_tower_viewer'::regrole
        and dbid = (select oid from pg_database where datname = current_database())"""
    assert one(db, held) > 0
    migrate(dsn, to="0")
    assert one(db, held) == 0
    migrate(dsn)
    with queries.viewer(dsn) as connection:
        assert queries.situation(connection)["active_version"] is None


def test_every_query_answers_on_an_empty_database(database: NewDatabase) -> None:
    with queries.viewer(database()) as connection:
        assert queries.situation(connection) == {
            "active_version": None, "videos": False, "decisions": False, "models": False, "vectors": False
        }  # fmt: skip
        assert queries.totals(connection)["users"] == 0
        assert queries.taste(connection, USER)["tags"] == []
        assert queries.random_user(connection) is None
        assert queries.status(connection)["active_version"] is None
        assert queries.reach(connection, "none")["reached"] == 0
        assert "no_model" in {row["what"] for row in queries.problems(connection)}
        questions: list[tuple[Any, ...]] = [
            (queries.versions,),
            (queries.find_users,),
            (queries.find_users, "abc"),
            (queries.history, USER, ("like",)),
            (queries.recommendations, USER, None, 20, False),
            *((queries.attribute, kind) for kind in queries.KINDS),
            *((queries.lacking, what) for what in queries.LACKS),
            (queries.missing,),
            (queries.spread,),
            (queries.decisions_by_month,),
            (queries.sample, "none", 10, 20),
            (queries.against_data, "tag", (), ()),
            (queries.reached, "tag", (), ()),
            (queries.by_popularity, (), ()),
            (queries.models,),
            (queries.events,),
            (queries.runs,),
            (queries.throughput, 24),
            (queries.failures,),
            (queries.promotions,),
            (queries.impressions_by_day, 30),
            (queries.rates, 30),
            (queries.rates_by_day, 30),
            (queries.popular_by_day, 30),
            (queries.contributions, USER, WORLD.videos[0], "none"),
        ]
        for question, *arguments in questions:
            assert question(connection, *arguments) == [], question
        assert {row["job"] for row in queries.jobs(connection)} >= {"refresh", "update_popularity"}
        assert {row["name"] for row in queries.thresholds(connection)} >= {"gate_max_drop", "gate_min_recall"}


# ------------------------------------------------------------------------------------------------- users


def test_the_list_of_the_active_version_equals_the_users_list(viewer: queries.Connection, client: Client) -> None:
    for user in (USER, WORLD.many, WORLD.no_decisions, WORLD.only_nopes, WORLD.one_like):
        served = client.rpc("authenticated", user, "recommend_videos", limit=50)
        shown = queries.recommendations(viewer, user, "v1", 50, False)
        assert [(row["video_id"], row["rank"], row["score"], row["reason"]) for row in served] == [
            (str(row["video_id"]), row["rank"], pytest.approx(row["score"]), row["reason"]) for row in shown
        ]


@pytest.mark.world(models=2)
def test_the_preview_of_a_version_equals_its_list_once_active(
    db: Connection, viewer: queries.Connection, client: Client
) -> None:
    db.execute("select two_tower.rollback_model()")
    assert [(row["version"], row["state"]) for row in queries.versions(viewer)] == [("v1", "active"), ("v2", "standby")]
    shown = [row["video_id"] for row in queries.recommendations(viewer, USER, "v2", 20, False)]
    assert shown != [row["video_id"] for row in queries.recommendations(viewer, USER, "v1", 20, False)]
    db.execute("select two_tower.activate_model('v2')")
    served = client.rpc("authenticated", USER, "recommend_videos", limit=20)
    assert shown == [UUID(row["video_id"]) for row in served]


def test_known_videos_are_ranked_and_marked_on_request(viewer: queries.Connection) -> None:
    hidden = queries.recommendations(viewer, WORLD.many, "v1", 100, False)
    assert not {row["video_id"] for row in hidden} & WORLD.decided(WORLD.many)
    assert {row["decision"] for row in hidden} == {None}
    shown = queries.recommendations(viewer, WORLD.many, "v1", 100, True)
    for kind in ("like", "nope", "skip"):
        marked = {row["video_id"] for row in shown if row["decision"] == kind}
        assert marked
        assert marked == {row["video_id"] for row in shown} & WORLD.of(WORLD.many, kind)
    left = [row["video_id"] for row in shown if row["decision"] is None]
    assert left == [row["video_id"] for row in hidden][: len(left)]


def test_history_is_in_descending_order_of_time_with_the_fields_of_a_card(viewer: queries.Connection) -> None:
    found = queries.history(viewer, WORLD.many, ("like",), 30)
    ours = sorted((at, v) for u, v, kind, at in WORLD.decisions if u == WORLD.many and kind == "like")
    assert sorted((row["created_at"], row["video_id"]) for row in found) == ours[-30:]
    assert [row["created_at"] for row in found] == sorted((row["created_at"] for row in found), reverse=True)
    for row in found:
        assert set(row["tags"]) == {value for video, value in values_of("tag") if video == row["video_id"]}
        assert set(row["performers"]) == {value for video, value in values_of("performer") if video == row["video_id"]}


def test_users_are_found_by_id_prefix_of_an_id_and_imported_id(db: Connection, viewer: queries.Connection) -> None:
    most = Counter(u for u, _ in LIKES).most_common(1)[0]
    top = queries.find_users(viewer)
    assert (top[0]["user_id"], top[0]["likes"]) == most
    assert [row["likes"] for row in top] == sorted((row["likes"] for row in top), reverse=True)
    for text in (str(USER), str(USER).upper(), USER.hex, f" {str(USER)[:13]} ", USER.hex[:9]):
        assert [row["user_id"] for row in queries.find_users(viewer, text)] == [USER], text
    first = str(USER)[0]
    beginning = {row["user_id"] for row in queries.find_users(viewer, first)}
    assert beginning == {u for u in WORLD.users[1:] if str(u).startswith(first)}
    imported = user_uuid("reader 7")
    db.execute("insert into auth.users (id) values (%s)", (imported,))
    db.execute("insert into user_video_decisions values (%s, %s, 'like')", (imported, WORLD.videos[0]))
    assert [row["user_id"] for row in queries.find_users(viewer, "reader 7")] == [imported]
    assert queries.find_users(viewer, "reader 8") == []
    assert [row["user_id"] for row in queries.find_users(viewer, str(NOBODY))] == [NOBODY]
    assert len(queries.find_users(viewer, "", 5)) == 5


def test_taste_counts_the_tags_of_likes(db: Connection, viewer: queries.Connection) -> None:
    found = queries.taste(viewer, WORLD.many, 100)
    mine = WORLD.of(WORLD.many, "like")
    assert {tag["name"]: tag["likes"] for tag in found["tags"]} == Counter(
        value for video, value in values_of("tag") if video in mine
    )
    assert found["likes"] == len(mine)
    assert found["versions"] == ["v1"]
    assert not found["pending"]
    db.execute("delete from user_video_decisions where user_id = %s and decision_type = 'like'", (WORLD.many,))
    assert queries.taste(viewer, WORLD.many)["pending"]


def test_contributions_add_up_to_the_score(db: Connection, viewer: queries.Connection) -> None:
    as_sums = one(db, "select user_engine = 'sql' from two_tower.model_versions where version = 'v1'")
    for user in (USER, WORLD.many, WORLD.one_like):
        for shown in queries.recommendations(viewer, user, "v1", 10, False):
            found = queries.contributions(viewer, user, shown["video_id"], "v1", 5)
            if not as_sums:
                assert found == []
                continue
            assert sum(part["value"] for part in found) == pytest.approx(shown["score"], abs=3e-3)
            decided = len(WORLD.of(user, "like") | WORLD.of(user, "nope"))
            assert sum(part["number"] for part in found) == decided + 1
            sizes_of = [abs(part["value"]) for part in found if part["kind"] != "others"]
            assert sizes_of == sorted(sizes_of, reverse=True)
            assert len(found) <= 6
    assert queries.contributions(viewer, WORLD.no_decisions, WORLD.published[0], "v1") == []


def test_a_random_user_can_be_any_user(viewer: queries.Connection) -> None:
    found = Counter(queries.random_user(viewer) for _ in range(200))
    assert found.keys() <= set(WORLD.users)
    assert len(found) > 5
    middle = sorted(WORLD.users)[len(WORLD.users) // 2]
    assert 50 < sum(times for user, times in found.items() if user and user >= middle) < 150


# ------------------------------------------------------------------------------------------------- data


def test_totals_are_counted_over_everything(viewer: queries.Connection) -> None:
    kinds = Counter(decision for _, _, decision, _ in WORLD.decisions)
    assert queries.totals(viewer) == {
        "videos": len(WORLD.videos), "published": len(WORLD.published), "users": len({u for u, *_ in WORLD.decisions}),
        "likes": kinds["like"], "nopes": kinds["nope"], "skips": kinds["skip"],
    }  # fmt: skip


@pytest.mark.parametrize("kind", queries.KINDS)
def test_shares_of_an_attribute_equal_those_of_the_data(kind: str, viewer: queries.Connection) -> None:
    links = values_of(kind)
    items = Counter(value for _, value in links)
    by_video = Counter(video for _, video in LIKES)
    likes: Counter[str] = Counter()
    for video, value in links:
        likes[value] += by_video[video]
    found = queries.attribute(viewer, kind, 100)
    assert {row["value"]: (row["items"], row["likes"]) for row in found} == {
        value: (items[value], likes[value]) for value in items
    }
    for row in found:
        assert row["item_share"] == pytest.approx(row["items"] / len(WORLD.videos))
        assert row["like_share"] == pytest.approx(row["likes"] / len(LIKES))
        assert row["values"] == len(items)
    assert [row["likes"] for row in found] == sorted((row["likes"] for row in found), reverse=True)
    assert queries.attribute(viewer, kind, 2) == found[:2]


def test_missing_attributes_are_counted_and_their_videos_listed(viewer: queries.Connection) -> None:
    by_video = Counter(video for _, video in LIKES)
    has = {
        "tags": {v for v, _ in WORLD.video_tags}, "performers": {v for v, _ in WORLD.video_performers},
        **{name: {row[0] for row in WORLD.video_rows if row[at]} for name, at in FIELDS.items()},
        "price": {row[0] for row in WORLD.video_rows if row[8] is not None},
        "picture": {row[0] for row in WORLD.video_rows if row[7]},
        "publication": set(WORLD.published), "any like": set(by_video),
    }  # fmt: skip
    found = {row["what"]: row for row in queries.missing(viewer)}
    assert found.keys() == has.keys()
    titles = {row[2]: row[0] for row in WORLD.video_rows}
    for what, having in has.items():
        without = set(WORLD.videos) - having
        assert found[what]["items"] == len(without), what
        assert found[what]["likes"] == sum(by_video[video] for video in without), what
        named = queries.lacking(viewer, what, 1000)
        assert {titles[row["title"]] for row in named} == without, what
        assert [row["likes"] for row in named] == sorted((by_video[video] for video in without), reverse=True)


def test_the_distribution_of_likes_covers_all_users_and_videos(viewer: queries.Connection) -> None:
    found = queries.spread(viewer)
    users = Counter(u for u, _ in LIKES)
    videos = Counter(v for _, v in LIKES)

    def least(number: int) -> int:
        return 0 if number == 0 else 1 << (number.bit_length() - 1)

    decided = {u for u, *_ in WORLD.decisions}
    expected = Counter(("users", least(users[u])) for u in decided) + Counter(
        ("videos", least(videos[v])) for v in WORLD.videos
    )
    assert {(row["who"], row["least"]): row["number"] for row in found} == expected


def test_decisions_are_counted_in_their_month(viewer: queries.Connection) -> None:
    expected = Counter((at.strftime("%Y-%m"), kind) for _, _, kind, at in WORLD.decisions)
    found = queries.decisions_by_month(viewer)
    assert {(row["month"].strftime("%Y-%m"), row["decision"]): row["number"] for row in found} == expected
    last = max(month for month, _ in expected)
    assert {row["month"].strftime("%Y-%m") for row in queries.decisions_by_month(viewer, 1)} == {last}


QUESTIONS: list[tuple[Callable[..., Any], Any]] = [
    (queries.totals, ()),
    *((queries.attribute, (kind,)) for kind in queries.KINDS),
    (queries.missing, ()),
    (queries.lacking, ("price",)),
    (queries.spread, ()),
    (queries.decisions_by_month, ()),
    (queries.find_users, ()),
    (queries.find_users, ("a",)),
    (queries.taste, (USER,)),
    (queries.history, (USER, ("like",))),
    (queries.recommendations, (USER, "v1", 20, False)),
    (queries.contributions, (USER, WORLD.published[0], "v1")),
    (queries.reach, ("v1",)),
    (queries.sample, ("v1", 20, 10)),
    (queries.against_data, ("tag", tuple(WORLD.published[:9]), tuple(range(9)))),
    (queries.by_popularity, (tuple(WORLD.published[:9]), tuple(range(9)))),
    (queries.reached, ("maker", tuple(WORLD.published[:9]), tuple(range(9)))),
    (queries.models, ()),
    (queries.events, ()),
    (queries.thresholds, ()),
    (queries.status, ()),
    (queries.jobs, ()),
    (queries.runs, ()),
    (queries.failures, ()),
    (queries.promotions, ()),
    (queries.rates, (30,)),
    (queries.impressions_by_day, (30,)),
]
"""The queries of the page's figures."""
SAMPLED = (queries.totals, queries.missing, queries.spread, queries.decisions_by_month, queries.reach, queries.status)


def test_the_sql_of_a_figure_returns_the_figure(viewer: queries.Connection) -> None:
    for question, arguments in QUESTIONS:
        with queries.written_down() as statements:
            answer = question(viewer, *arguments)
        (statement,) = statements
        assert "%(" not in statement
        found = viewer.execute(statement.encode()).fetchall()
        assert found == (answer if isinstance(answer, list) else [answer]), statement


def test_long_lists_of_ids_are_left_out_of_the_sql_of_a_figure(viewer: queries.Connection) -> None:
    with queries.written_down() as statements:
        queries.by_popularity(viewer, tuple(WORLD.published), tuple(range(len(WORLD.published))))
    assert statements[0].startswith("-- {...} stands for")
    assert len(statements[0]) < 3000


def test_figures_about_many_rows_come_from_a_sample(
    viewer: queries.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert queries.sampled(viewer) == 1
    exact = {question: question(viewer, *arguments) for question, arguments in QUESTIONS if question in SAMPLED}
    for at_most in (1, 50, 300):
        monkeypatch.setattr(sizes, "AT_MOST", dict.fromkeys(sizes.AT_MOST, at_most))
        assert 0 < queries.sampled(viewer) < 1
        for question, arguments in QUESTIONS:
            answer = question(viewer, *arguments)
            if question in exact:
                whole = exact[question]
                columns = {*whole[0]} if isinstance(whole, list) else {*whole}
                for row in answer if isinstance(answer, list) else [answer]:
                    assert {*row} <= columns, question


OF_MANY: list[tuple[Callable[..., Any], Any]] = [
    (queries.totals, ()),
    (queries.attribute, ("tag",)),
    (queries.attribute, ("maker",)),
    (queries.missing, ()),
    (queries.lacking, ("price",)),
    (queries.spread, ()),
    (queries.decisions_by_month, ()),
    (queries.find_users, ()),
    (queries.reach, ("v1",)),
    (queries.sample, ("v1", 2, 10)),
    (queries.against_data, ("tag", tuple(WORLD.published[:9]), tuple(range(9)))),
    (queries.by_popularity, (tuple(WORLD.published[:9]), tuple(range(9)))),
    (queries.status, ()),
]
"""Queries over all users that tabs run when they open, except those of impressions."""


def blocks_read(viewer: queries.Connection, question: Callable[..., Any], arguments: tuple[Any, ...]) -> int:
    """Blocks that the statement of an answer reads."""
    with queries.written_down() as statements:
        question(viewer, *arguments)
    (statement,) = statements
    found = viewer.execute(f"explain (analyze, buffers, format json) {statement}".encode()).fetchone()
    assert found is not None
    top = found["QUERY PLAN"][0]["Plan"]
    return int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])


def test_a_tab_reads_no_more_blocks_with_more_users(dsn: str, db: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"decisions": 1000, "features": 100, "vectors": 100, "impressions": 100, "attributes": 10**6, "videos": 10**6}
    every = dict.fromkeys(few, 10**9)

    def grow(first: int, last: int) -> None:
        """More users, each like the usual one: with three likes, features, and a vector."""
        db.execute("set session_replication_role = replica")
        db.execute(
            f"""create temp table more as
            select md5('more' || n)::uuid as user_id, n from generate_series({first}, {last}) n;
            insert into user_video_decisions (user_id, video_id, decision_type, created_at)
            select m.user_id, v.id, 'like', timestamptz '2024-01-01' + m.n * interval '1 minute'
            from (select id, row_number() over (order by id) as k from videos) v
            join more m on (m.n + v.k) % 100 = 0;
            insert into user_features (user_id, liked_tags, like_count, updated_at)
            select m.user_id, f.liked_tags, f.like_count, f.updated_at
            from more m cross join (select * from user_features where user_id = '{USER}') f;
            insert into two_tower.user_embeddings (model_version, user_id, embedding, length)
            select e.model_version, m.user_id, e.embedding, e.length
            from more m cross join (select * from two_tower.user_embeddings where user_id = '{USER}') e;
            drop table more;
            truncate two_tower.user_changes, two_tower.user_change_log""".encode()
        )
        db.execute("set session_replication_role = origin")
        db.execute("select two_tower.update_popularity()")
        db.execute("vacuum (analyze)")

    def read(at_most: dict[str, int]) -> list[int]:
        monkeypatch.setattr(sizes, "AT_MOST", at_most)
        with queries.viewer(dsn) as viewer:
            for question, arguments in OF_MANY:  # what a session reads once, from the system catalogue
                question(viewer, *arguments)
            return [blocks_read(viewer, question, arguments) for question, arguments in OF_MANY]

    grow(1, 10_000)
    before, whole = read(few), read(every)
    grow(10_001, 30_000)
    after, grown = read(few), read(every)
    names = [f"{question.__name__}{arguments}"[:60] for question, arguments in OF_MANY]
    assert sum(grown) > 2 * sum(whole)
    for name, *blocks in zip(names, before, after, grown, strict=True):
        assert blocks[1] <= 1.2 * blocks[0] + 50, f"{name}: {blocks}"


# ------------------------------------------------------------------------------------------------- recommendations


def test_a_sample_counts_the_lists_of_its_users(viewer: queries.Connection) -> None:
    found = queries.sample(viewer, "v1", 1000, 10)
    with_vector = set(column_of(viewer, "select user_id from two_tower.user_embeddings"))
    lists = {user: queries.recommendations(viewer, user, "v1", 10, False) for user in with_vector}
    expected = Counter(row["video_id"] for rows in lists.values() for row in rows)
    assert {row["video_id"]: row["times"] for row in found} == expected
    assert {row["users"] for row in found} == {len(with_vector)}
    for row in found:
        assert len(set(row["readers"])) == len(row["readers"]) == row["times"]
        assert set(row["readers"]) <= set(range(1, len(with_vector) + 1))
    assert queries.sample(viewer, "v1", 5, 10) == queries.sample(viewer, "v1", 5, 10)
    assert sum(row["times"] for row in queries.sample(viewer, "v1", 5, 10)) == 50


def column_of(connection: queries.Connection, query: str) -> list[Any]:
    return [next(iter(row.values())) for row in connection.execute(query.encode())]


def test_recommendations_are_compared_with_items_and_likes(viewer: queries.Connection) -> None:
    videos, times = tuple(WORLD.published[:3]), (5, 3, 2)
    found = {row["value"]: row for row in queries.against_data(viewer, "tag", videos, times, 100)}
    for value in {v for _, v in values_of("tag")}:
        carriers = {video for video, name in values_of("tag") if name == value}
        expected = sum(n for video, n in zip(videos, times, strict=True) if video in carriers) / 10
        assert found[value]["recommendations"] == pytest.approx(expected)
        assert found[value]["items"] == pytest.approx(len(carriers) / len(WORLD.videos))
        assert found[value]["likes"] == pytest.approx(sum(video in carriers for _, video in LIKES) / len(LIKES))


@pytest.mark.parametrize("kind", ["tag", "performer", "maker"])
def test_users_reached_are_counted_once_by_attribute(kind: str, viewer: queries.Connection) -> None:
    found = queries.sample(viewer, "v1", 20, 10)
    places = [(row["video_id"], reader) for row in found for reader in row["readers"]]
    answer = queries.reached(viewer, kind, tuple(v for v, _ in places), tuple(r for _, r in places), 1000)
    carriers: dict[str, set[Any]] = {}
    for video, value in values_of(kind):
        carriers.setdefault(value, set()).add(video)
    expected = {}
    for value, videos in carriers.items():
        shown = [(video, reader) for video, reader in places if video in videos]
        if shown:
            expected[value] = (len(shown), len({v for v, _ in shown}), len({r for _, r in shown}))
    assert {row["value"]: (row["places"], row["videos"], row["users"]) for row in answer} == expected
    assert [row["users"] for row in answer] == sorted((row["users"] for row in answer), reverse=True)


def test_popularity_bands_have_equal_sizes_and_descending_likes(viewer: queries.Connection) -> None:
    by_video = Counter(video for _, video in LIKES)
    popular = max(WORLD.published, key=lambda video: by_video[video])
    unpopular = min(WORLD.published, key=lambda video: by_video[video])
    found = queries.by_popularity(viewer, (popular, unpopular), (3, 1))
    assert [row["band"] for row in found] == list(range(1, 11))
    assert all(row["items"] == pytest.approx(0.1, abs=0.005) for row in found)
    likes = [row["likes"] for row in found]
    assert likes == sorted(likes, reverse=True)
    assert sum(likes) == pytest.approx(1)
    assert found[0]["recommendations"] == pytest.approx(0.75)
    assert found[-1]["recommendations"] == pytest.approx(0.25)


def test_reach_counts_users_and_videos_with_vectors(db: Connection, viewer: queries.Connection) -> None:
    likers = {u for u, _ in LIKES}
    assert queries.reach(viewer, "v1") == {
        "users": len(likers), "reached": len(likers),
        "published": len(WORLD.published), "embedded": len(WORLD.published),
    }  # fmt: skip
    db.execute("delete from two_tower.user_embeddings where user_id = %s", (USER,))
    assert queries.reach(viewer, "v1")["reached"] == len(likers) - 1


# ------------------------------------------------------------------------------------------------- models, freshness


def test_models_are_listed_newest_first_without_parity_samples(db: Connection, viewer: queries.Connection) -> None:
    tiny_model(db, "v2", seed=2, activate=False)
    found = queries.models(viewer)
    assert [(row["version"], row["state"]) for row in found] == [("v2", "candidate"), ("v1", "active")]
    assert found[0]["metrics"]["two-tower"]["recall@20"] == 0.5
    assert "parity" not in found[0]["metrics"]


def test_events_contain_the_report_of_the_gate(db: Connection, viewer: queries.Connection) -> None:
    newest = queries.events(viewer)[0]
    assert (newest["model_version"], newest["to_state"]) == ("v1", "active")
    assert newest["report"]["reasons"] == []


def test_throughput_contains_the_longest_wait(db: Connection, viewer: queries.Connection) -> None:
    for waited in (40, 7):
        db.execute(
            "insert into two_tower.user_changes (user_id, logged_at) values (%s, now() - %s * interval '1 second')",
            (USER, waited),
        )
        refresh(db)
    found = column(db, "select (result ->> 'lag_seconds')::float8 from two_tower.job_log order by id desc limit 2")
    assert found == [pytest.approx(7, abs=3), pytest.approx(40, abs=3)]
    assert max(row["lag"] for row in queries.throughput(viewer, 1) if row["lag"] is not None) >= 40


def test_throughput_sums_the_work_of_refreshes(db: Connection, viewer: queries.Connection) -> None:
    before = sum(row["users"] for row in queries.throughput(viewer, 1))
    db.execute("insert into two_tower.user_changes (user_id) select unnest(%s::uuid[])", ([USER, WORLD.many],))
    refresh(db)
    found = queries.throughput(viewer, 1)
    assert sum(row["users"] for row in found) == before + 2
    assert all(row["until"] > row["at"] and row["since"] < row["now"] for row in found)
    assert queries.runs(viewer, 1)[0]["job"] in ("refresh", "update_popularity")


def test_a_change_set_aside_is_listed_and_is_a_problem(db: Connection, viewer: queries.Connection) -> None:
    db.execute(
        """insert into two_tower.change_failures (kind, id, sqlstate, error, retry_at)
        values ('user', %s, 'XX000', 'poisoned', now() + interval '1 hour')""",
        (USER,),
    )
    assert [(row["id"], row["error"]) for row in queries.failures(viewer)] == [(USER, "poisoned")]
    assert "set_aside" in {row["what"] for row in queries.problems(viewer)}
    assert queries.status(viewer)["failed_changes"] == 1


# ------------------------------------------------------------------------------------------------- actions


def test_a_like_is_written_as_the_user_and_changes_the_list(
    dsn: str, db: Connection, viewer: queries.Connection
) -> None:
    before = queries.recommendations(viewer, USER, "v1", 20, False)
    video = before[0]["video_id"]
    vector = one(db, "select embedding::text from two_tower.user_embeddings where user_id = %s", USER)
    actions.decide(dsn, USER, video, "like")
    decision = "select decision_type from user_video_decisions where user_id = %s and video_id = %s"
    assert one(db, decision, USER, video) == "like"
    assert one(db, "select embedding::text from two_tower.user_embeddings where user_id = %s", USER) != vector
    assert one(db, "select count(*) from two_tower.pending_users") == 0
    after = queries.recommendations(viewer, USER, "v1", 20, False)
    assert video not in {row["video_id"] for row in after}
    actions.decide(dsn, USER, video, "nope")
    assert one(db, decision, USER, video) == "nope"
    actions.decide(dsn, USER, video, None)
    assert column(db, decision, USER, video) == []
    assert queries.recommendations(viewer, USER, "v1", 20, False) == before


def test_a_like_on_the_page_passes_row_level_security(dsn: str, db: Connection) -> None:
    db.execute("drop policy two_tower_own on public.user_video_decisions")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        actions.decide(dsn, USER, next(v for v in WORLD.published if v not in WORLD.decided(USER)), "like")


def test_a_replay_returns_the_list_after_each_like_and_changes_nothing(
    dsn: str, db: Connection, viewer: queries.Connection, client: Client
) -> None:
    everything = """select md5(string_agg(t::text, '|' order by t::text)) from (
        select d::text as t from user_video_decisions d union all select e::text from two_tower.user_embeddings e
        union all select f::text from user_features f
    ) as s"""
    before = one(db, everything)
    for user in (WORLD.many, WORLD.one_like, WORLD.only_nopes):
        likes = sorted((at, v) for u, v, kind, at in WORLD.decisions if u == user and kind == "like")
        steps = actions.replay(dsn, user, likes=3, limit=5)
        assert len(steps) == 1 + min(3, len(likes))
        titles = {row[0]: row[2] for row in WORLD.video_rows}
        assert [step["liked"] for step in steps] == [None, *(titles[video] for _, video in likes[:3])]
        assert {video["reason"] for video in steps[0]["videos"]} == {"popular"}
        for step in steps[1:]:
            assert len(step["videos"]) == 5
            assert {video["reason"] for video in step["videos"]} == {"taste"}
    assert one(db, everything) == before
    assert one(db, "select count(*) from two_tower.pending_users") == 0
    whole = [row["title"] for row in client.rpc("authenticated", WORLD.one_like, "recommend_videos", limit=5)]
    assert [video["title"] for video in actions.replay(dsn, WORLD.one_like, 3, 5)[-1]["videos"]] == whole


def test_an_unknown_user_cannot_like(dsn: str) -> None:
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        actions.decide(dsn, uuid4(), WORLD.published[0], "like")


def test_a_like_without_an_active_model_is_stored(dsn: str, db: Connection) -> None:
    db.execute("update two_tower.model_versions set state = 'standby' where state = 'active'")
    video = next(v for v in WORLD.published if v not in WORLD.decided(USER))
    assert "No model is active" in actions.decide(dsn, USER, video, "like")
    assert one(db, "select count(*) from user_video_decisions where user_id = %s and video_id = %s", USER, video) == 1


def test_activation_and_rollback_use_the_rights_of_the_login(dsn: str, db: Connection) -> None:
    tiny_model(db, "v2", seed=2, activate=False)
    done = actions.activate(dsn, "v2", lambda what, share: None)
    assert (done["model_version"], done["previous"]) == ("v2", "v1")
    assert actions.roll_back(dsn, "v1")["model_version"] == "v1"
    assert one(db, "select two_tower.active_version()") == "v1"


def test_a_refusal_of_the_gate_raises_its_reasons(dsn: str, db: Connection) -> None:
    model = random_model(schema_of(db), seed=2)
    assert model.metrics
    model.metrics["two-tower"] = {"recall@20": 0.1, "ndcg@20": 0.5}
    register(db, model, "v2")
    with pytest.raises(GateFailed, match=r"recall@20 is 0\.1"):
        actions.activate(dsn, "v2", lambda what, share: None)
    assert registry.versions(db)[0]["state"] == "active"


def test_abilities_are_those_of_the_login(dsn: str, login: str, db: Connection) -> None:
    everything = ("decide", "activate", "roll_back", "experiment", "promote")
    assert actions.abilities(dsn) == dict.fromkeys(everything, True)
    assert actions.abilities(login) == dict.fromkeys(everything, False)
    with queries.viewer(login) as connection:
        assert queries.situation(connection)["active_version"] == "v1"


def test_the_login_of_postgrest_may_like_but_not_activate(dsn: str, connect: Connect) -> None:
    found = actions.abilities(make_conninfo(dsn, user="authenticator"))
    assert {what for what, may in found.items() if may} == {"decide"}


# ------------------------------------------------------------------------------------------------- looks


def video(**given: Any) -> dict[str, Any]:
    empty = {"thumbnail_url": None, "image_urls": None, "product_url": "https://videos.example/1", "maker": None}
    return {"video_id": WORLD.videos[0], "title": "Title", "tags": [], "performers": [], **empty, **given}


def test_markup_in_a_title_a_tag_or_an_address_stays_text() -> None:
    evil = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
    html = look.card(video(title=evil, tags=[evil], performers=[evil], maker=evil, product_url=f"https://x/{evil}"), "")
    assert "<script" not in html
    assert "<img" not in html
    assert html.count("&lt;script&gt;") == 8


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "//x", "", "http://["]
)
def test_only_http_urls_are_linked_or_loaded(url: str) -> None:
    html = look.card(
        video(product_url=url, thumbnail_url=url, image_urls=[url, url + "#"]), "", pictures=[url, url + "#"]
    )
    assert pictures.loadable([url]) == set()
    assert "<a " not in html
    assert "<img" not in html


@pytest.mark.parametrize("images", [None, [], {"a": 1}, [1, None, {}, ""], "https://i/1"])
def test_image_urls_that_are_not_a_list_are_ignored(images: Any) -> None:
    assert "<img" not in look.card(video(image_urls=images), "", pictures=["https://i/1"])
    assert look.pictures_of([video(image_urls=images)]) == set()


def test_a_card_shows_a_few_images_each_once() -> None:
    many = [f"https://i/{at}.jpg" for at in range(20)]
    html = look.card(video(thumbnail_url=many[0], image_urls=[*many, many[1]]), "", pictures=many)
    assert re.findall(r'src="([^"]+)"', html) == many[: 1 + look.IMAGES]
    assert re.findall(r'src="([^"]+)"', look.card(video(image_urls=many[:2]), "", pictures=many)) == many[:2]
    assert "<img" not in look.card(video(image_urls=many[:2]), "")


def test_a_video_without_a_picture_has_a_poster_that_needs_no_network() -> None:
    for title in ("Title", "星の船", "🎬", "<b>", ""):
        assert 'background-image:url(data:image/svg+xml;base64,' in look.card(video(title=title), "")  # fmt: skip
    drawn = {pictures.poster(video, "A b") for video in WORLD.videos}
    assert len(drawn) > 0.95 * len(WORLD.videos)
    for poster in drawn:
        ElementTree.fromstring(base64.b64decode(poster.partition(",")[2]))


def test_only_pictures_of_hosts_that_exist_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def getaddrinfo(host: str, port: None) -> list[str]:
        asked.append(host)
        if host.startswith("gone"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if host.startswith("odd"):
            raise UnicodeError("label too long")
        if host.startswith("slow"):
            time.sleep(1)
        return [host]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(pictures, "PATIENCE", 0.3)
    monkeypatch.setattr(pictures, "_asked", {})
    hosts = [f"{kind}{n}.two-tower.net" for kind in ("there", "gone", "odd", "slow") for n in range(3)]
    reserved = ["videos.example", "x.invalid", "test", "a.b.test"]
    urls = {host: f"{scheme}://{host}/1.jpg" for host in hosts + reserved for scheme in ("http", "https")}
    given = [*urls.values(), None, "", "javascript:alert(1)"]
    there = {url for host, url in urls.items() if host.startswith("there")}
    assert pictures.loadable(given) == there
    assert pictures.loadable(given) == there
    assert sorted(asked) == sorted(hosts)  # each once, without reserved names
    time.sleep(1)
    assert pictures.loadable(given) == there | {url for host, url in urls.items() if host.startswith("slow")}


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, as WCAG 2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_have_contrast_on_light_and_dark_pages() -> None:
    grounds = {scheme: THEME[f"{scheme}.backgroundColor"] for scheme in ("light", "dark")}
    for scheme, ground in grounds.items():
        for colour in (*look.COLOURS, look.INK):
            assert contrast(colour, str(ground)) >= 3, (colour, scheme)
        assert contrast(str(THEME[f"{scheme}.textColor"]), str(ground)) >= 7
    for rule in re.findall(r"\{[^}]*light-dark[^}]*\}", look._CSS):
        said = dict(re.findall(r"(color|background): light-dark\(([^)]+)\)", rule))
        if said.keys() == {"color", "background"}:
            for text, ground in zip(*(said[name].split(", ") for name in ("color", "background")), strict=True):
                assert contrast(text, ground) >= 4.5, rule


def test_the_word_mark_needs_no_font() -> None:
    assert {element.tag.partition("}")[2] for element in ElementTree.fromstring(look.LOGO).iter()} == {
        "svg", "rect", "path"
    }  # fmt: skip


def test_text_in_markdown_stays_text() -> None:
    assert look.plain("a_b *c* [d](e) <f> $g$ :h:") == r"a\_b \*c\* \[d\]\(e\) \<f\> \$g\$ \:h\:"


# ------------------------------------------------------------------------------------------------- what was shown


def test_the_viewer_can_read_impressions_and_experiments(
    dsn: str, viewer: queries.Connection, db: Connection, client: Client
) -> None:
    assert queries.experiment(viewer) is None
    assert queries.impressions_by_day(viewer, 30) == []
    assert queries.rates(viewer, 30) == []
    assert queries.comparable(viewer) == {"active": "v1", "others": []}
    tiny_model(db, "v2", seed=2)
    assert queries.comparable(viewer) == {"active": "v2", "others": ["v1"]}
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="v1 does not serve"):
        actions.start_experiment(dsn, "v1", "v2", 0.5, lambda what, share: None)
    assert actions.start_experiment(dsn, "v2", "v1", 0.5, lambda what, share: None)["experiment"] == 1
    for user in WORLD.users[5:15]:
        client.rpc("authenticated", user, "next_videos", limit=6)
    found = queries.experiment(viewer)
    assert found is not None
    assert {row["model_version"]: row["shown"] for row in found["versions"]} == {
        row["model_version"]: row["shown"] for row in queries.impressions_by_day(viewer, 1)
    }
    assert sum(row["shown"] for row in queries.rates(viewer, 1)) == 60
    assert actions.stop_experiment(dsn, "v1")["model_version"] == "v1"
    assert queries.experiment(viewer)["winner"] == "v1"  # type: ignore[index]


def test_like_rates_are_counted_by_day(db: Connection, viewer: queries.Connection, client: Client) -> None:
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    days = [noon - timedelta(days=ago) for ago in (4, 2, 1)]
    by_video = Counter(video for _, video in LIKES)
    ranked = sorted(WORLD.published, key=lambda video: (-by_video[video], video))
    popular = set(ranked[: -(-len(ranked) // 10)])
    db.execute("select two_tower.update_popularity()")
    shown: Counter[tuple[datetime, str]] = Counter()
    liked: Counter[tuple[datetime, str]] = Counter()
    top: Counter[tuple[datetime, str]] = Counter()
    for at, day in enumerate(days):
        db.execute("select two_tower.make_impression_day(%s)", (day.date(),))
        for place, user in enumerate(WORLD.users[5:15]):
            for rank, video in enumerate(WORLD.published[at * 40 + place : at * 40 + place + 12], 1):
                version = ("v1", "v2")[place % 2]
                db.execute(
                    """insert into two_tower.impressions
                    (user_id, list_id, video_id, rank, model_version, reason, shown_at)
                    values (%s, gen_random_uuid(), %s, %s, %s, 'taste', %s)""",
                    (user, video, rank, version, day),
                )
                shown[day, version] += 1
                top[day, version] += video in popular
                if rank % 3 == 0 or video in WORLD.decided(user):
                    # Earlier decisions were made before the videos were shown.
                    continue
                if rank % 3 == 1:
                    db.execute(
                        """insert into user_video_decisions (user_id, video_id, decision_type, created_at)
                        values (%s, %s, 'like', %s)""",
                        (user, video, day + timedelta(minutes=1)),
                    )
                    liked[day, version] += 1
    found = {(row["day"], row["model_version"]): row for row in queries.rates_by_day(viewer, 30)}
    assert found.keys() == {(day.date(), version) for day, version in shown}
    for (day, version), number in shown.items():
        row = found[day.date(), version]
        assert row["shown"] == number
        assert row["like_rate"] == pytest.approx(liked[day, version] / number)
    for row in queries.popular_by_day(viewer, 30):
        day = next(day for day in days if day.date() == row["day"])
        number = shown[day, row["model_version"]]
        assert row["share"] == pytest.approx(top[day, row["model_version"]] / number)
        assert 0.1 < row["liked"] < 1
    assert {(row["day"], row["model_version"]): row["shown"] for row in queries.impressions_by_day(viewer, 30)} == {
        (day.date(), version): number for (day, version), number in shown.items()
    }
    assert queries.shown_days(viewer, 30) == 30


def test_as_many_days_are_counted_as_have_few_enough_rows(
    db: Connection, viewer: queries.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ago in range(-1, 6):
        db.execute("select two_tower.make_impression_day((now() at time zone 'UTC')::date - %s)", (ago,))
        db.execute(
            """insert into two_tower.impressions (user_id, list_id, video_id, rank, reason, shown_at)
            select gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, 'taste',
                date_trunc('day', now(), 'UTC') - %s * interval '1 day' + interval '1 second'
            from generate_series(1, 100)""",
            (ago,),
        )
    db.execute("analyze two_tower.impressions")
    for at_most, days in ((99, 0), (100, 0), (250, 1), (350, 2), (599, 4), (600, 30)):
        monkeypatch.setitem(sizes.AT_MOST, "impressions", at_most)
        assert queries.shown_days(viewer, 30) == days, at_most
    assert queries.shown_days(viewer, 3) == 3


# ------------------------------------------------------------------------------------------------- promotions


def test_promotions_are_added_listed_and_ended(dsn: str, db: Connection) -> None:
    def told(number: int) -> dict[str, Any]:
        with queries.viewer(dsn) as viewer:
            return next(row for row in queries.promotions(viewer) if row["id"] == number)

    video, title = next((row[0], row[2]) for row in WORLD.video_rows if row[0] in WORLD.published and row[2])
    for given in (
        Promotion("boost", video=video, strength=3),
        Promotion("bury", videos={"makers": ["maker a"]}, note="a campaign"),
        Promotion("pin", video=video, rank=2, segment={"makers": ["maker b"]}),
        Promotion("boost", video=video, ends_at=datetime(2999, 1, 1, tzinfo=UTC)),
    ):
        number = actions.add_promotion(dsn, given)["id"]
        row = told(number)
        assert row["state"] == "current"
        for name, value in (
            ("kind", given.kind), ("video_id", given.video), ("title", title if given.video else None),
            ("videos", given.videos), ("segment", given.segment), ("strength", given.strength or 2),
            ("rank", given.rank), ("ends_at", given.ends_at), ("note", given.note),
        ):  # fmt: skip
            assert row[name] == value, name
        assert actions.end_promotion(dsn, number) == {"id": number}
        assert told(number)["state"] == "ended"
        with pytest.raises(UserError, match=f"promotion {number} has already ended"):
            actions.end_promotion(dsn, number)
    (planned,) = column(
        db,
        "insert into two_tower.promotions (kind, video_id, starts_at) values ('bury', %s, '2999-01-01') returning id",
        video,
    )
    assert told(planned)["state"] == "planned"
    actions.end_promotion(dsn, planned)
    assert one(db, "select count(*) from two_tower.promotions where id = %s", planned) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        Promotion("raise", video=WORLD.videos[3]),
        Promotion("boost"),
        Promotion("boost", video=WORLD.videos[3], videos={"makers": ["maker a"]}),
        Promotion("boost", video=WORLD.videos[3], strength=1),
        Promotion("bury", video=WORLD.videos[3], strength=11),
        Promotion("pin", video=WORLD.videos[3]),
        Promotion("pin", video=WORLD.videos[3], rank=201),
        Promotion("boost", videos={"colour": "red"}),
        Promotion("boost", video=WORLD.videos[3], segment={"tag_ids": ["no id"]}),
        Promotion("boost", video=WORLD.videos[3], ends_at=datetime(2000, 1, 1, tzinfo=UTC)),
    ],
    ids=lambda given: f"{given.kind}-{given.strength}-{given.rank}",
)
def test_an_invalid_promotion_is_refused(wrong: Promotion, dsn: str, db: Connection) -> None:
    with pytest.raises((psycopg.errors.DataError, psycopg.errors.IntegrityError)):
        actions.add_promotion(dsn, wrong)
    assert one(db, "select count(*) from two_tower.promotions") == 0


def test_a_video_is_found_by_id_or_product_url(viewer: queries.Connection) -> None:
    row = WORLD.video_rows[5]
    for name in (str(row[0]), str(row[0]).upper(), f" {row[0]} ", row[1]):
        assert queries.video_named(viewer, name) == {"id": row[0], "title": row[2]}, name
    for name in ("", "nothing", str(NOBODY), row[1][:-1] + "x"):
        assert queries.video_named(viewer, name) is None, name
