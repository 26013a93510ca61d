"""Both engines, and the sums of refreshes, give the vectors of the plain definition (I2, I3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import errors

from conftest import Connect, Connection, NewDatabase, Prepared, WorldOf, borrowed
from test_refresh import CHANGES, Lab, assert_complete, assert_fresh, operations, pending
from two_tower.lifecycle import tower_rows
from two_tower.server.embedded import Server
from world_fixtures import (
    NOBODY,
    Client,
    TinyModel,
    column,
    ident,
    make_world,
    one,
    packed,
    random_model,
    refresh,
    register,
    register_model,
    rows_of,
    schema_of,
    state,
    tiny_model,
)

WORLD = make_world()
USER = WORLD.usual
UNDECIDED = next(v for v in WORLD.videos if v not in WORLD.decided(USER))
LIKED = min(WORLD.of(USER, "like"))
COUNTS = """liked_tags, liked_performers, liked_makers, liked_labels, liked_series, liked_sources, liked_video_ids,
    noped_video_ids, like_count, nope_count, price_sum, priced_count"""
TOLERANCE = 1e-5
"""Largest cosine distance between vectors that differ only in the order of summation."""
USERS = {
    "sums": "select user_id, embedding from two_tower.sum_users(%(ids)s, %(version)s)",
    "definition by sql": "select user_id, embedding from two_tower.define_users(%(ids)s, %(version)s, 'sql')",
    "definition by onnxruntime": "select * from two_tower.define_users(%(ids)s, %(version)s, 'onnxruntime')",
    "embed_users": "select user_id, embedding from two_tower.embed_users(%(ids)s, %(version)s)",
}
VIDEOS = {
    "sql": "select video_id, embedding from two_tower.compute_videos(%(ids)s, %(version)s, 'sql')",
    "onnxruntime": "select video_id, embedding from two_tower.compute_videos(%(ids)s, %(version)s, 'onnxruntime')",
    "embed_videos": "select video_id, embedding from two_tower.embed_videos(%(ids)s, %(version)s)",
}
Found = dict[UUID, str]


@pytest.fixture
def dsn(database: NewDatabase, world_of: WorldOf) -> str:
    """The world of the engine ``auto``, whose model has rows and files."""
    return database(template=world_of("auto"))


def vectors(db: Connection, query: str, ids: list[UUID], version: str = "v1") -> Found:
    """The vectors that a query of USERS or VIDEOS gives, to the bit, by id."""
    found = db.execute(f"select q.id, q.embedding::text from ({query}) q (id, embedding)".encode(),
                       {"ids": ids, "version": version}).fetchall()  # fmt: skip
    assert len(dict(found)) == len(found)
    return dict(found)


def assert_near(first: Found, second: Found) -> None:
    """The same ids, and vectors that differ by no more than TOLERANCE."""
    assert first.keys() == second.keys()
    for key, text in first.items():
        a, b = (np.array(one_text.strip("[]").split(","), dtype=float) for one_text in (text, second[key]))
        distance = 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert distance < TOLERANCE, (key, distance)


def assert_users(db: Connection, ids: list[UUID], version: str = "v1") -> Found:
    """Asserts that all ways to compute vectors of users from the present rows agree; returns the vectors."""
    found = vectors(db, USERS["embed_users"], ids, version)
    row = db.execute(
        """select user_engine, exists (select from two_tower.model_weights where model_version = version)
        from two_tower.model_versions where version = %s""",
        (version,),
    ).fetchone()
    assert row is not None
    engine, has_rows = row
    same = "sums" if engine == "sql" else "definition by onnxruntime"
    assert vectors(db, USERS[same], ids, version) == found
    for name, query in USERS.items():
        if has_rows or name == "definition by onnxruntime":
            assert_near(found, vectors(db, query, ids, version))
    return found


def assert_equal(db: Connection, users: list[UUID]) -> int:
    """Asserts that stored vectors of these users equal computed ones; returns the number of users with features."""
    counted = f"select user_id, {COUNTS} from two_tower.count_user_features(%s) order by 1"
    stored = f"select user_id, {COUNTS} from public.user_features where user_id = any (%s) order by 1"
    expected = db.execute(counted.encode(), (users,)).fetchall()
    assert db.execute(stored.encode(), (users,)).fetchall() == expected
    query = """select user_id, embedding from two_tower.user_embeddings
        where user_id = any (%(ids)s) and model_version = %(version)s"""
    for version in one(db, "select two_tower.live_versions()"):
        assert vectors(db, query, users, version) == assert_users(db, users, version)
    return len(expected)


def insert_new_videos(db: Connection) -> list[UUID]:
    """Videos that no model knows, with every kind of content, liked and noped by users with many likes."""
    new = [ident("new", n) for n in range(12)]
    for n, video in enumerate(new):
        db.execute(
            """insert into videos (id, product_url, title, maker, label, price, duration_seconds, product_released_at)
            values (%s, %s, '', %s, %s, %s, %s, %s)""",
            (
                video, str(video), [None, "maker a", "unheard of", ""][n % 4], "label a" if n % 3 else None,
                [None, 0, 0.01, 12.5, 5000, 60_000][n % 6], [None, 0, 1, 9_000][n // 2 % 4],
                [None, "2020-02-02", "1800-01-01"][n % 3],
            ),
        )  # fmt: skip
        for tag in WORLD.tags[: n % 5]:
            db.execute("insert into video_tags values (%s, %s)", (video, tag))
        for performer in WORLD.performers[: n % 3]:
            db.execute("insert into video_performers values (%s, %s)", (video, performer))
        for at, user in enumerate((WORLD.many, USER, WORLD.only_nopes, WORLD.one_like)):
            kind = "nope" if user == WORLD.only_nopes or (at + n) % 3 == 0 else "like"
            db.execute("insert into user_video_decisions values (%s, %s, %s)", (user, video, kind))
    return new


# ------------------------------------------------------------------------------------------- every user and video


def test_i2_every_user_has_the_same_vector_by_every_engine(db: Connection) -> None:
    assert assert_equal(db, WORLD.users) == len(WORLD.users) - 2
    insert_new_videos(db)
    before = assert_users(db, WORLD.users)
    refresh(db)
    assert assert_equal(db, WORLD.users) == len(WORLD.users) - 2
    assert assert_users(db, WORLD.users) == before
    for user in (WORLD.one_like, WORLD.many, WORLD.only_nopes, WORLD.no_decisions, NOBODY):
        assert assert_users(db, [user]) == {key: text for key, text in before.items() if key == user}


def test_i2_every_video_has_the_same_vector_by_every_engine(db: Connection) -> None:
    new = insert_new_videos(db)
    known = one(db, "select count(*) from two_tower.vocabularies where vocabulary = 'video'")
    assert len(WORLD.videos) / 2 < known < len(WORLD.videos), "some videos of the world are new to the model, too"
    everything = WORLD.videos + new
    found = {name: vectors(db, query, [*everything, NOBODY]) for name, query in VIDEOS.items()}
    for each in found.values():
        assert each.keys() == set(everything)
        assert_near(each, found["onnxruntime"])
    # The content differs, or the layer would not be tested.
    assert len({found["sql"][video] for video in new}) == len(new)
    for name, query in VIDEOS.items():
        for video in (*new, *WORLD.videos[::29]):
            assert vectors(db, query, [video]) == {video: found[name][video]}


def test_i2_engines_agree_on_versions_with_different_vocabularies(db: Connection) -> None:
    db.execute("delete from user_video_decisions where user_id = any (%s)", (WORLD.users[30:],))
    refresh(db)
    tiny_model(db, "v2", seed=2, activate=False, engine="auto")
    tiny_model(db, "v3", seed=3, activate=False, engine="onnxruntime")
    tiny_model(db, "v4", seed=4, activate=False, engine="sql")
    for version in ("v2", "v3", "v4"):
        db.execute("call two_tower.backfill_model(%s, true)", (version,))
    assert one(db, "select two_tower.live_versions()") == ["v1", "v2", "v3", "v4"]
    assert_equal(db, WORLD.users)
    assert_fresh(db)


def test_i2_engines_agree_on_unusual_prices_names_and_times(db: Connection) -> None:
    db.execute(
        """update videos set maker = %s, label = %s, series = '',
            price = case when title like '%%1' then 0.1 when title like '%%2' then 123456.789 end
        where title ~ '[1-4]$'""",
        ('a "quoted" \\ name\nof two lines, with {braces}', "\u00fcml\u00e4ut \U0001f600"),
    )
    for time, user in (("infinity", USER), ("-infinity", WORLD.users[7])):
        db.execute("update user_video_decisions set created_at = %s where user_id = %s", (time, user))
    refresh(db)
    assert one(db, "select count(*) from two_tower.failed_changes") == 0
    assert_equal(db, WORLD.users)


def test_i1_nothing_depends_on_how_a_session_prints_numbers(db: Connection, connect: Connect) -> None:
    new = insert_new_videos(db)
    queries = [(q, WORLD.users) for q in USERS.values()] + [(q, WORLD.videos + new) for q in VIDEOS.values()]
    expected = [vectors(db, query, ids) for query, ids in queries]
    for digits in (-15, 3):
        other = connect()
        other.execute(f"set extra_float_digits = {digits}".encode())
        assert [vectors(other, query, ids) for query, ids in queries] == expected


def test_i1_a_taste_does_not_depend_on_which_others_are_computed(db: Connection) -> None:
    query = "select video_id, liked::text, noped::text from two_tower.compute_tastes(%s, 'v1') order by 1"
    together = db.execute(query, (WORLD.videos,)).fetchall()
    assert len(together) == len(WORLD.videos)
    for video, liked, noped in together[::23]:
        assert db.execute(query, ([video],)).fetchall() == [(video, liked, noped)]


def test_users_without_likes_have_no_vector(db: Connection) -> None:
    found = assert_users(db, WORLD.users)
    assert found.keys() == set(WORLD.users) - {WORLD.no_decisions, WORLD.only_skips, WORLD.only_nopes}
    db.execute("delete from videos where id = any (%s)", (list(WORLD.of(WORLD.one_like, "like")),))
    assert WORLD.one_like not in assert_users(db, WORLD.users)
    refresh(db)
    assert WORLD.one_like not in assert_users(db, WORLD.users)


# ------------------------------------------------------------------------------------------- stale tastes


def test_i3_stored_and_computed_tastes_have_the_same_sums(db: Connection) -> None:
    before = vectors(db, USERS["sums"], WORLD.users)
    for marked in (WORLD.videos[:1], WORLD.videos[::2], WORLD.videos, [UUID(int=0)]):
        with db.transaction(force_rollback=True):
            db.execute("insert into two_tower.video_changes (video_id) select unnest(%s::uuid[])", (marked,))
            # If nothing has changed, marks have no effect.
            assert vectors(db, USERS["sums"], WORLD.users) == before


def like(db: Connection, video: UUID, kind: str = "like") -> None:
    db.execute(
        """insert into user_video_decisions values (%s, %s, %s)
        on conflict (user_id, video_id) do update set decision_type = excluded.decision_type""",
        (USER, video, kind),
    )


def inserted(db: Connection) -> None:
    db.execute("insert into videos (id, product_url, title, maker) values (%s, 'x', 'x', 'maker a')", (NOBODY,))
    db.execute("insert into video_tags values (%s, %s)", (NOBODY, WORLD.tags[0]))
    like(db, NOBODY)


def retagged(db: Connection) -> None:
    db.execute("update videos set maker = 'maker c', price = 77 where id = any (%s)", ([UNDECIDED, LIKED],))
    db.execute("delete from video_tags where video_id = any (%s)", ([UNDECIDED, LIKED],))
    db.execute("insert into video_tags select v, %s from unnest(%s) v", (WORLD.rare_tag, [UNDECIDED, LIKED]))
    like(db, UNDECIDED)


def retagged_noped(db: Connection) -> None:
    retagged(db)
    like(db, UNDECIDED, "nope")


def deleted(db: Connection) -> None:
    like(db, UNDECIDED)
    db.execute("delete from videos where id = any (%s)", ([UNDECIDED, LIKED],))


def only_like_is_new(db: Connection) -> None:
    db.execute("delete from user_video_decisions where user_id = %s", (USER,))
    inserted(db)


def set_aside(db: Connection) -> None:
    """Changes and inserts videos whose vectors cannot be stored."""
    db.execute("insert into videos (id, product_url, title, maker) values (%s, 'x', 'x', 'maker a')", (NOBODY,))
    like(db, UNDECIDED, "skip")
    for video in (UNDECIDED, NOBODY):
        check = f"constraint c_{video.hex} check (video_id <> '{video}') not valid"
        db.execute(f"alter table two_tower.video_embeddings add {check}".encode())
    db.execute("update videos set maker = 'maker c', price = 77 where id = %s", (UNDECIDED,))
    refresh(db)
    assert set(column(db, "select id from two_tower.failed_changes")) == {UNDECIDED, NOBODY}
    db.execute("delete from user_video_decisions where user_id = %s", (USER,))
    like(db, UNDECIDED)
    like(db, NOBODY)


def mend(db: Connection) -> None:
    """Repairs what set_aside() broke."""
    for name in column(
        db, "select conname from pg_constraint where conname ~ '^c_' and conislocal and coninhcount = 0"
    ):
        db.execute(f"alter table two_tower.video_embeddings drop constraint {name}".encode())
    db.execute("update two_tower.change_failures set retry_at = now()")


LATE: dict[str, Callable[[Connection], None]] = {
    "a video inserted a moment ago": inserted,
    "the only like, of a video inserted a moment ago": only_like_is_new,
    "a video that was tagged anew": retagged,
    "a nope of a video that was tagged anew": retagged_noped,
    "a video that was deleted": deleted,
    "videos that failed and were set aside": set_aside,
}


def add_versions(db: Connection, engine: str) -> None:
    tiny_model(db, "v2", seed=2, engine=engine)
    tiny_model(db, "v3", seed=3, activate=False, engine=engine)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("engine", ["sql", "onnxruntime"])
@pytest.mark.parametrize("case", LATE)
def test_i3_a_like_counts_before_its_changed_video_is_refreshed(
    case: str, engine: str, database: NewDatabase, world_of: WorldOf, prepared: Prepared
) -> None:
    dsn = database(template=prepared(world_of("auto"), add_versions, engine))
    with psycopg.connect(dsn, autocommit=True) as db, psycopg.connect(dsn, user="authenticator") as asked:
        like_before_the_refresh(LATE[case], db, Client(asked))


def like_before_the_refresh(case: Callable[[Connection], None], db: Connection, client: Client) -> None:
    versions = ("v1", "v2", "v3")  # standby, active, and one that has no vectors
    some = [USER, WORLD.one_like, *WORLD.users[6:9]]
    before = {version: vectors(db, USERS["embed_users"], [USER], version) for version in versions}
    case(db)
    found = {version: assert_users(db, some, version) for version in versions}
    assert all(found[version][USER] != before[version][USER] for version in versions), "the case changes nothing"
    client.rpc("authenticated", USER, "embed_user")
    stored = "select model_version, embedding::text from two_tower.user_embeddings where user_id = %s"
    assert dict(db.execute(stored, (USER,)).fetchall()) == {v: found[v][USER] for v in ("v1", "v2")}
    mend(db)
    refresh(db)
    assert_fresh(db)
    assert {version: assert_users(db, some, version) for version in versions} == found


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("case", "engine", "refreshes"),
    [(case, "sql", refreshes) for case in LATE if LATE[case] is not set_aside for refreshes in (True, False)]
    + [("a video inserted a moment ago", "onnxruntime", True)],
)
def test_i3_a_like_during_a_backfill_is_in_the_new_version(
    case: str, engine: str, refreshes: bool, db: Connection
) -> None:
    """After its videos are embedded, and after they are attached."""
    some = [USER, WORLD.one_like, WORLD.only_nopes, *WORLD.users[6:10]]
    register(db, random_model(schema_of(db), seed=2), "v2", engine=engine)
    db.execute("select two_tower.stage_model('v2', true)")
    while one(db, "select (two_tower.backfill_batch('v2', 'video')).last_id is not null"):
        pass
    db.execute("delete from user_video_decisions where user_id = %s and video_id = %s", (USER, LIKED))
    like(db, LIKED)
    db.execute("update videos set maker = 'maker b', label = 'label b' where id = any (%s)", (WORLD.videos[::3],))
    if refreshes:
        refresh(db)
    assert_users(db, some, "v2")
    assert one(db, "select two_tower.attach_partitions('v2')")
    LATE[case](db)
    assert_users(db, some, "v2")
    if refreshes:
        refresh(db)
        assert_users(db, some, "v2")
    db.execute("call two_tower.backfill_model('v2', true)")
    found = assert_users(db, some, "v2")
    refresh(db)
    assert assert_users(db, some, "v2") == found
    assert_fresh(db)


def test_i3_a_rolled_back_change_of_the_catalogue_has_no_effect(db: Connection, connect: Connect) -> None:
    before = assert_users(db, WORLD.users)
    with db.transaction(force_rollback=True):
        db.execute("update videos set maker = 'maker b', price = 7")
        db.execute("select two_tower.refresh_batch(null)")
        assert assert_users(db, WORLD.users) != before
    assert assert_users(db, WORLD.users) == before
    other = connect()
    other.execute("update videos set maker = 'maker c' where maker = 'maker a'")
    other.execute("call two_tower.refresh()")
    assert_equal(db, WORLD.users)


def test_i3_an_old_snapshot_computes_with_its_own_catalogue(db: Connection, connect: Connect) -> None:
    other = connect()
    with db.transaction():
        db.execute("set transaction isolation level repeatable read")
        before = assert_users(db, WORLD.users)
        other.execute("update videos set maker = 'maker b'")
        other.execute("call two_tower.refresh()")
        assert assert_users(db, WORLD.users) == before
    assert assert_users(db, WORLD.users) != before
    assert_equal(db, WORLD.users)


def test_i3_a_standby_version_keeps_fresh_tastes(db: Connection, client: Client) -> None:
    tiny_model(db, "v2", seed=2, engine="sql")
    retagged(db)
    refresh(db)
    db.execute("select two_tower.rollback_model()")
    assert one(db, "select two_tower.active_version()") == "v1"
    assert_equal(db, WORLD.users)
    like(db, min(WORLD.tagged(WORLD.rare_tag)))
    found = assert_users(db, WORLD.users)
    client.rpc("authenticated", USER, "embed_user")
    assert one(db, "select embedding::text from user_embeddings where user_id = %s", USER) == found[USER]
    refresh(db)
    assert_fresh(db)


# -------------------------------------------------------------------------------------- every change under every engine


def drain(db: Connection) -> None:
    """A refresh without its commits."""
    db.execute("select two_tower.collect_user_changes()")
    while pending(db) != (0, 0):
        db.execute("select two_tower.refresh_batch()")


def rebuild(db: Connection) -> None:
    """A rebuild without its commits."""
    for kind in ("video", "user"):
        last = None
        while (last := one(db, "select two_tower.rebuild_batch(%s, %s)", kind, last)) is not None:
            pass


@pytest.fixture(scope="module", params=["auto", "sql", "onnxruntime"])
def played(request: pytest.FixtureRequest, cluster: Server, world_of: WorldOf) -> Iterator[Connection]:
    """A database of one engine, in which tests undo their changes."""
    with borrowed(cluster, world_of(request.param)) as db:
        yield db


@pytest.mark.sampled(13)
@pytest.mark.parametrize("change", CHANGES)
def test_i3_a_refresh_equals_a_rebuild_under_every_engine(change: str, played: Connection) -> None:
    with played.transaction(force_rollback=True):
        before = state(played)
        played.execute(CHANGES[change].encode())
        assert pending(played) != (0, 0), "the change marked nothing"
        drain(played)
        assert one(played, "select count(*) from two_tower.change_failures") == 0
        found = assert_complete(played)
        assert found != before, "the change changed nothing"
        rebuild(played)
        assert state(played) == found


@pytest.fixture(params=["sql", "onnxruntime"])
def lab(request: pytest.FixtureRequest, database: NewDatabase) -> Iterator[Lab]:
    made = Lab(database(), request.param)
    yield made
    for connection in (made.db, *made.workers):
        connection.close()


@pytest.mark.soak
@settings(
    max_examples=8, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(history=st.lists(operations, min_size=6, max_size=14))
def test_i3_any_history_ends_as_a_rebuild_under_every_engine(lab: Lab, history: list[tuple[Any, ...]]) -> None:
    for statement, *values in history:
        lab.play(statement, *values)
    refresh(lab.db)
    assert_fresh(lab.db)


# ------------------------------------------------------------------------------------------- weights of any scale


def registered(db: Connection, change: Callable[[TinyModel], object], engine: str = "auto") -> None:
    """Registers and fills a version v2 with a changed user tower."""
    model = random_model(schema_of(db), seed=2)
    with torch.no_grad():
        change(model)
    register(db, packed(model.schema, model.user_tower, model.item_tower), "v2", engine=engine)
    db.execute("call two_tower.backfill_model('v2', true)")


@pytest.mark.sampled(1)
@pytest.mark.parametrize("engine", ["sql", "onnxruntime"])
def test_a_tower_without_any_weight_gives_the_first_axis(engine: str, db: Connection) -> None:
    registered(db, lambda model: [p.zero_() for p in model.user_tower.parameters()], engine)
    assert set(assert_users(db, WORLD.users, "v2").values()) == {"[1" + ",0" * 127 + "]"}
    assert_fresh(db)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("scale", [1e-9, 1e-7, 1e-5, 1e-3, 1e3, 1e5, 1e7])
def test_scaling_all_weights_does_not_change_a_users_vector(scale: float, db: Connection) -> None:
    """Only the direction of a user counts; half precision holds numbers from 6e-8 to 65504."""
    registered(db, lambda model: [p.mul_(scale) for p in model.user_tower.parameters()])
    assert_equal(db, WORLD.users)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e5, 1e10])
def test_the_weight_of_a_tag_may_have_any_scale(scale: float, db: Connection) -> None:
    registered(db, lambda m: m.user_tower.weight[m.schema.segment("user", "liked_tags").offset].mul_(scale))
    assert_equal(db, WORLD.users)


# ------------------------------------------------------------------------------------------- registration

CHOICES: list[tuple[str, bool, tuple[str, str] | str, tuple[str, str] | str]] = [
    # Setting, whether there are rows; the engines of users and videos, or the SQLSTATE, on a server with onnxruntime
    # and on one without.
    ("auto", True, ("sql", "onnxruntime"), ("sql", "sql")),
    ("auto", False, ("onnxruntime", "onnxruntime"), "55000"),
    ("sql", True, ("sql", "sql"), ("sql", "sql")),
    ("sql", False, "22023", "22023"),
    ("onnxruntime", True, ("onnxruntime", "onnxruntime"), "55000"),
    ("onnxruntime", False, ("onnxruntime", "onnxruntime"), "55000"),
]


def choose(db: Connection, setting: str) -> None:
    db.execute("update two_tower.settings set value = to_jsonb(%s::text) where name = 'inference_engine'", (setting,))


def engines(db: Connection, version: str) -> tuple[str, str]:
    row = db.execute("select user_engine, item_engine from two_tower.model_versions where version = %s", (version,))
    found = row.fetchone()
    assert found is not None
    return found


def without_python(db: Connection) -> None:
    """As on a server without PL/Python: drops the routines that use it."""
    for name in column(
        db,
        """select p.oid::regprocedure::text from pg_proc p join pg_language l on l.oid = p.prolang
        where l.lanname = 'plpython3u' and p.pronamespace = 'two_tower'::regnamespace""",
    ):
        db.execute(f"drop function {name}".encode())


@pytest.mark.parametrize("setting", ["something else", ""])
def test_an_unavailable_engine_registers_nothing(setting: str, db: Connection) -> None:
    """Such a setting is refused, except in a session without triggers, such as one that restores a dump."""
    with pytest.raises(psycopg.Error, match="inference_engine must be") as caught:
        choose(db, setting)
    assert caught.value.sqlstate == "22023"
    with db.transaction():
        db.execute("set local session_replication_role = replica")
        choose(db, setting)
    with pytest.raises(psycopg.Error, match="inference_engine must be") as caught:
        register_model(db, random_model(schema_of(db), seed=2), "v2")
    assert caught.value.sqlstate == "22023"
    assert caught.value.diag.message_hint
    assert column(db, "select version from two_tower.model_versions") == ["v1"]


@pytest.mark.sampled
@pytest.mark.parametrize("python", [True, False])
@pytest.mark.parametrize(("setting", "with_rows", "there", "elsewhere"), CHOICES)
def test_the_engine_is_chosen_when_a_version_is_registered(
    setting: str, with_rows: bool, there: tuple[str, str] | str, elsewhere: tuple[str, str] | str, python: bool,
    db: Connection,
) -> None:  # fmt: skip
    model = random_model(schema_of(db), seed=2)
    if not python:
        without_python(db)
    choose(db, setting)
    if with_rows:
        tower_rows.store(db, "v2", rows_of(model))
    expected = there if python else elsewhere
    if isinstance(expected, str):
        with pytest.raises(psycopg.Error) as caught:
            register_model(db, model, "v2")
        assert caught.value.sqlstate == expected
        assert caught.value.diag.message_hint
        assert column(db, "select version from two_tower.model_versions") == ["v1"]
        return
    register_model(db, model, "v2")
    assert engines(db, "v2") == expected
    db.execute("call two_tower.backfill_model('v2', true)")
    found = state(db)
    assert {key.split()[0] for key in found if key.endswith(" v2")} == {"user", "video"} | (
        {"taste"} if expected[0] == "sql" else set()
    )
    # Another setting affects only later versions.
    choose(db, "onnxruntime" if expected[0] == "sql" else "sql")
    db.execute("insert into two_tower.user_changes (user_id) select id from auth.users")
    db.execute("insert into two_tower.video_changes (video_id) select id from videos")
    if python:
        refresh(db)
        assert state(db) == found


Rows = list[tower_rows.Row]


def changed(tower: str, part: str, by: float) -> Callable[[Rows], Rows]:
    return lambda rows: [(t, p, at, w * by if (t, p) == (tower, part) else w) for t, p, at, w in rows]


def lacking(tower: str, part: str) -> Callable[[Rows], Rows]:
    return lambda rows: [row for row in rows if row[:2] != (tower, part)]


def moved(tower: str, part: str) -> Callable[[Rows], Rows]:
    """Shifts each row to the position of the next one."""
    return lambda rows: [(t, p, at + 1 if (t, p) == (tower, part) else at, w) for t, p, at, w in rows]


PARTS = [
    ("user", "bias"), ("user", "row"), ("item", "bias"), ("item", "own"), ("item", "centre"), ("item", "square"),
    ("item", "outward"), ("item", "decay"), ("item", "mean"), ("item", "divisor"), ("item", "used"), ("item", "known"),
]  # fmt: skip
WRONG = {
    **{f"{tower} {part} lacking": lacking(tower, part) for tower, part in PARTS},
    **{f"{tower} {part} reversed": changed(tower, part, -1) for tower, part in PARTS},
    **{
        f"{tower} {part} moved": moved(tower, part)
        for tower, part in (("user", "row"), ("item", "own"), ("item", "centre"))
    },
}


@pytest.fixture(scope="module")
def registry_world(cluster: Server, world_of: WorldOf) -> Iterator[Connection]:
    """A database of the engine auto, in which tests undo their changes. Its backend has loaded onnxruntime."""
    with borrowed(cluster, world_of("auto")) as db:
        yield db


@pytest.fixture(scope="module")
def candidate(registry_world: Connection) -> tuple[TinyModel, Rows]:
    """A model for that world, and its rows."""
    model = random_model(schema_of(registry_world), seed=2)
    return model, rows_of(model)


@pytest.mark.sampled(9)
@pytest.mark.parametrize("fault", WRONG)
def test_weights_as_rows_that_do_not_fit_the_tower_are_refused(
    fault: str, registry_world: Connection, candidate: tuple[TinyModel, Rows]
) -> None:
    db = registry_world
    model, rows = candidate
    with db.transaction(force_rollback=True):
        tower_rows.store(db, "v2", WRONG[fault](rows))
        with pytest.raises(psycopg.Error) as caught, db.transaction():
            register_model(db, model, "v2")
        assert caught.value.sqlstate in ("22023", "55000")
        assert caught.value.diag.message_primary is not None
        assert "v2" in caught.value.diag.message_primary
        assert column(db, "select version from two_tower.model_versions") == ["v1"]
        # Correct rows are accepted afterwards.
        assert register(db, model, "v2", engine="sql") == "v2"


@pytest.mark.sampled
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("tower", "part"), PARTS)
def test_weights_that_are_not_finite_numbers_are_refused(
    tower: str, part: str, value: float, registry_world: Connection, candidate: tuple[TinyModel, Rows]
) -> None:
    db = registry_world
    rows = changed(tower, part, value)(candidate[1])
    with pytest.raises(errors.DataError), db.transaction():
        tower_rows.store(db, "v2", rows)


def test_weights_as_rows_without_a_parity_sample_are_refused(db: Connection) -> None:
    model = random_model(schema_of(db), seed=2)
    assert model.metrics is not None
    tower_rows.store(db, "v2", rows_of(model))
    without_python(db)
    for tower in ("user", "item"):
        parity = {name: sample for name, sample in model.metrics["parity"].items() if name != tower}
        with pytest.raises(errors.InvalidParameterValue, match=f"sample of what its {tower} tower answers"):
            register_model(db, replace(model, metrics=model.metrics | {"parity": parity}), "v2")


CHANGED = {
    "inserted": "insert into two_tower.model_weights values ('v2', 'user', 'row', 100000, '[1]')",
    "deleted": "delete from two_tower.model_weights where model_version = 'v2'",
    "moved to it": "update two_tower.model_weights set model_version = 'v2', position = 9 where model_version = 'v3'",
    "moved away": "update two_tower.model_weights set model_version = 'v4' where model_version = 'v2'",
    "updated": "update two_tower.model_weights set weight = '[1]' where model_version = 'v2'",
    "emptied": "truncate two_tower.model_weights",
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("role", ["postgres", "service_role"])
@pytest.mark.parametrize("change", CHANGED)
def test_the_weights_of_a_registered_version_do_not_change(change: str, role: str, db: Connection) -> None:
    register(db, random_model(schema_of(db), seed=2), "v2", engine="auto")
    db.execute("insert into two_tower.model_weights values ('v3', 'user', 'bias', 0, '[1]')")
    allowed = role != "service_role" or change in ("inserted", "deleted")
    if role != "postgres":
        db.execute(f"set role {role}".encode())
    with pytest.raises(errors.ObjectNotInPrerequisiteState if allowed else errors.InsufficientPrivilege):
        db.execute(CHANGED[change].encode())


@pytest.mark.sampled(1)
@pytest.mark.parametrize("engine", ["auto", "sql", "onnxruntime"])
def test_registering_again_changes_nothing_and_retirement_removes_all_rows(engine: str, db: Connection) -> None:
    model = random_model(schema_of(db), seed=2)
    register(db, model, "v2", engine=engine)
    number = one(db, "select number from two_tower.model_versions where version = 'v2'")
    count = "select count(*) from two_tower.model_weights where model_version = 'v2'"
    kept = one(db, count)
    assert register(db, model, "v2", engine=engine) == "v2"
    assert one(db, count) == kept
    db.execute("call two_tower.backfill_model('v2', true)")
    tastes = 0 if engine == "onnxruntime" else len(WORLD.videos)
    assert one(db, f"select count(*) from two_tower.video_tastes_{number}") == tastes
    db.execute("select two_tower.retire_model('v2')")
    assert one(db, count) == 0
    for table in ("user_embeddings", "video_embeddings", "video_tastes"):
        assert one(db, "select to_regclass(%s)", f"two_tower.{table}_{number}") is None
        assert one(db, f"select count(*) from two_tower.{table} where model_version = 'v2'") == 0
    # The registry has a record of it; registering it again has no effect.
    assert register(db, model, "v2", engine=engine) == "v2"
    assert one(db, count) == 0
    assert one(db, "select state from two_tower.model_versions where version = 'v2'") == "retired"


def test_the_gate_compares_vectors_computed_from_rows_with_stored_ones(db: Connection) -> None:
    assert one(db, "select two_tower.gate_parity('v1', 1000)") < TOLERANCE
    db.execute(
        """update two_tower.user_embeddings e set embedding = o.embedding
        from two_tower.user_embeddings o where e.user_id = %s and o.user_id = %s""",
        (USER, WORLD.many),
    )
    assert one(db, "select two_tower.gate_parity('v1', 1000)") > 1e-4


def test_an_engine_that_returns_too_few_vectors_is_refused(db: Connection) -> None:
    db.execute(
        """create or replace function two_tower.infer_onnxruntime(p_version text, p_tower text, p_packed bytea)
        returns text[] language sql as $$ select '{}'::text[] $$"""
    )
    with pytest.raises(errors.RaiseException, match="the engine gave 0 vectors for 1 inputs"):
        db.execute("select * from two_tower.define_users(%s, 'v1', 'onnxruntime')", ([USER],))
    with pytest.raises(errors.RaiseException, match="the engine gave 0 vectors for 1 inputs"):
        db.execute("select * from two_tower.embed_videos(%s)", (WORLD.videos[:1],))


def test_rows_convert_back_to_the_same_tensors(db: Connection) -> None:
    model = random_model(schema_of(db), seed=2)
    tower_rows.store(db, "v2", rows_of(model))
    back = tower_rows.to_tensors(tower_rows.read(db, "v2"), model.schema.user_dim, model.schema.item_dim)
    tensors = tower_rows.tensors_of(model.weights)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert np.array_equal(back[name], tensor), name
