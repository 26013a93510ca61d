"""Freshness: nothing is lost (I3), nobody waits (I4), equal inputs give equal bits (I1), only changes cost (I7)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import errors

from conftest import Connect, Connection, NewDatabase
from two_tower.lifecycle import verify as verification
from two_tower.trainer.export import user_graph
from world_fixtures import (
    ENGINE,
    EPOCH,
    NOBODY,
    Client,
    State,
    World,
    column,
    copy_rows,
    heal,
    ident,
    load,
    make_world,
    one,
    poison,
    refresh,
    state,
    tiny_model,
)

pytestmark = pytest.mark.world

WORLD = make_world()


def pending(db: Connection) -> tuple[int, int]:
    """Users and videos in the change log."""
    row = db.execute(
        """select (select count(distinct user_id) from two_tower.pending_users),
            (select count(distinct video_id) from two_tower.video_changes)"""
    ).fetchone()
    assert row is not None
    return row


def sums(db: Connection, version: str) -> bool:
    """Whether users of the version are sums, for which every video needs a taste."""
    return bool(one(db, "select user_engine = 'sql' from two_tower.model_versions where version = %s", version))


def assert_complete(db: Connection) -> State:
    """Asserts that stored rows are those of users with likes and of existing videos; returns them."""
    assert pending(db) == (0, 0)
    assert one(db, "select failed_changes from two_tower.status") == 0
    found = state(db)
    users = column(db, "select distinct user_id from public.user_video_decisions where decision_type = 'like'")
    videos = column(db, "select id from public.videos")
    for version in one(db, "select two_tower.live_versions()"):
        assert {k.split()[1] for k in found if k.startswith("user ") and k.endswith(f" {version}")} == {
            str(u) for u in users
        }
        kinds = ["video", "taste"] if sums(db, version) else ["video"]
        for kind in kinds:
            assert {k.split()[1] for k in found if k.startswith(f"{kind} ") and k.endswith(f" {version}")} == {
                str(v) for v in videos
            }
    return found


def assert_fresh(db: Connection) -> State:
    """The same, and asserts that they equal a rebuild."""
    found = assert_complete(db)
    db.execute("call two_tower.rebuild()")
    rebuilt = state(db)
    assert {k for k in found.keys() | rebuilt.keys() if found.get(k) != rebuilt.get(k)} == set()
    return found


def refreshed(db: Connection) -> dict[str, int]:
    """Refreshes; returns the counts."""
    before = one(db, "select coalesce(max(id), 0) from two_tower.job_log")
    refresh(db)
    row = db.execute(
        "select result - 'lag_seconds' from two_tower.job_log where job = 'refresh' and id > %s", (before,)
    ).fetchone()
    return row[0] if row else {"users": 0, "videos": 0, "vectors": 0, "failed": 0}


# -------------------------------------------------------------------------------------------- I3: every kind of change

USER, MANY, VIDEO, LIKED = WORLD.usual, WORLD.many, WORLD.videos[7], next(iter(WORLD.of(WORLD.one_like, "like")))
NOPED = min(WORLD.of(WORLD.only_nopes, "nope"))
NEW = max(v for v in WORLD.videos if not any(v == liked and d == "like" for _, liked, d, _ in WORLD.decisions))
"""A video that nobody likes and no model knows: it is placed by its content."""
TAG, PERFORMER = WORLD.tags[3], WORLD.performers[3]
UNDECIDED = next(v for v in WORLD.videos if v not in WORLD.decided(USER))

CHANGES: dict[str, str] = {
    "like": f"insert into user_video_decisions values ('{USER}', '{UNDECIDED}', 'like')",
    "nope": f"insert into user_video_decisions values ('{USER}', '{UNDECIDED}', 'nope')",
    "first like": f"insert into user_video_decisions values ('{WORLD.no_decisions}', '{VIDEO}', 'like')",
    "likes of many at once": f"""insert into user_video_decisions select id, '{UNDECIDED}', 'like' from auth.users
        on conflict (user_id, video_id) do update set decision_type = excluded.decision_type""",
    "like becomes nope": f"update user_video_decisions set decision_type = 'nope' where user_id = '{WORLD.one_like}'",
    "like becomes skip": f"update user_video_decisions set decision_type = 'skip' where user_id = '{WORLD.one_like}'",
    "skips become likes": "update user_video_decisions set decision_type = 'like' where decision_type = 'skip'",
    "upsert": f"""insert into user_video_decisions values ('{WORLD.one_like}', '{LIKED}', 'nope')
        on conflict (user_id, video_id) do update set decision_type = excluded.decision_type""",
    "merge": f"""merge into user_video_decisions d using auth.users u on u.id = d.user_id and d.video_id = '{LIKED}'
        when matched then delete when not matched then insert values (u.id, '{LIKED}', 'like', now())""",
    "like of another time": f"""update user_video_decisions set created_at = created_at - interval '99 days'
        where user_id = '{MANY}' and video_id = '{min(WORLD.of(MANY, "like"))}'""",
    "decisions change hands": f"""update user_video_decisions set user_id = '{WORLD.no_decisions}'
        where user_id = '{WORLD.one_like}'""",
    "decision about another video": f"""update user_video_decisions set video_id = '{WORLD.bare_video}'
        where user_id = '{WORLD.one_like}'""",
    "like taken back": f"delete from user_video_decisions where user_id = '{WORLD.one_like}'",
    "nope taken back": f"""delete from user_video_decisions
        where user_id = '{WORLD.only_nopes}' and video_id = '{NOPED}'""",
    "half of all decisions": "delete from user_video_decisions where extract(minute from created_at)::int % 2 = 0",
    "all decisions, row by row": "delete from user_video_decisions",
    "all decisions, truncated": "truncate user_video_decisions",
    "user deleted": f"delete from auth.users where id = '{USER}'",
    "all users deleted": "delete from auth.users",
    "all users truncated": "truncate auth.users cascade",
    "video inserted": f"insert into videos (id, product_url, title, maker) values ('{NOBODY}', 'x', 'x', 'maker a')",
    "video deleted": f"delete from videos where id = '{LIKED}'",
    "videos deleted": "delete from videos where maker = 'maker a'",
    "all videos truncated": "truncate videos cascade",
    "maker": f"update videos set maker = 'maker z' where id = '{LIKED}'",
    "label": f"update videos set label = null where id = '{LIKED}'",
    "series": f"update videos set series = 'series z' where id = '{LIKED}'",
    "source": f"update videos set source = 'source z' where id = '{LIKED}'",
    "title": f"update videos set title = 'Island of glass' where id = '{NEW}'",
    "description": f"update videos set description = '東京の夏' where id = '{NEW}'",
    "no title": "update videos set title = '', description = null",
    "price": "update videos set price = coalesce(price, 0) + 1",
    "price of a noped video": f"update videos set price = 3, maker = 'maker b' where id = '{NOPED}'",
    "duration": f"update videos set duration_seconds = 77 where id = '{NEW}'",
    "release": f"update videos set product_released_at = '2020-02-02' where id = '{NEW}'",
    "other release": f"""update videos set product_released_at = null, distribution_started_at = now()
        where id = '{NEW}'""",
    "tagged": f"insert into video_tags values ('{LIKED}', '{WORLD.rare_tag}')",
    "untagged": "delete from video_tags",
    "tags swapped": f"update video_tags set video_id = '{WORLD.bare_video}' where tag_id = '{TAG}' and video_id = "
    f"(select video_id from video_tags where tag_id = '{TAG}' limit 1)",
    "tag deleted": f"delete from tags where id = '{TAG}'",
    "tags truncated": "truncate video_tags",
    "all tags truncated": "truncate tags cascade",
    "performer of a video": f"insert into video_performers values ('{WORLD.bare_video}', '{PERFORMER}')",
    "performer deleted": f"delete from performers where id = '{PERFORMER}'",
    "performers swapped": f"update video_performers set performer_id = '{PERFORMER}' where video_id = "
    "(select video_id from video_performers group by 1 having count(*) = 1 "
    f"and bool_and(performer_id <> '{PERFORMER}') limit 1)",
    "performers truncated": "truncate video_performers",
}  # fmt: skip

IDLE: dict[str, str] = {
    "skip": f"insert into user_video_decisions values ('{USER}', '{UNDECIDED}', 'skip')",
    "skip taken back": "delete from user_video_decisions where decision_type = 'skip'",
    "skip at another time": "update user_video_decisions set created_at = now() where decision_type = 'skip'",
    "decisions set to what they are": "update user_video_decisions set decision_type = decision_type",
    "thumbnail, url": "update videos set thumbnail_url = 'x', product_url = id::text",
    "publication": "update videos set published_at = null",
    "columns set to what they are": "update videos set maker = maker, price = price, label = label, title = title",
    "links set to what they are": "update video_tags set tag_id = tag_id",
    "name of a tag": "update tags set name = name || '!'",
    "new tag, unused": f"insert into tags values ('{NOBODY}', 'unused')",
    "new user": f"insert into auth.users values ('{NOBODY}')",
    "profile": "update profiles set created_at = now()",
    "no row": "delete from videos where false",
}


def test_i3_refreshes_after_changes_equal_rebuilds(db: Connection) -> None:
    """Some changes of every table, one after another; ``test_engines.py`` runs each of them under each engine."""
    changes = (
        "like becomes nope", "likes of many at once", "maker", "tag deleted", "video deleted", "user deleted",
        "tags truncated", "all decisions, truncated",
    )  # fmt: skip
    for change in changes:
        before = state(db)
        db.execute(CHANGES[change].encode())
        assert pending(db) != (0, 0), change
        assert refreshed(db)["failed"] == 0, change
        assert assert_fresh(db) != before, change


def test_i7_a_change_that_is_no_input_logs_nothing(db: Connection) -> None:
    before = state(db)
    for change, statement in IDLE.items():
        db.execute(statement.encode())
        assert pending(db) == (0, 0), change
        assert state(db) == before, change
    assert assert_fresh(db) == before


def test_i3_a_retagged_video_changes_its_likers_and_nobody_else(db: Connection) -> None:
    before = state(db)
    video = max(WORLD.videos, key=lambda v: sum(d[1] == v and d[2] == "like" for d in WORLD.decisions))
    tag = next(t for t in WORLD.tags[:-1] if (video, t) not in WORLD.video_tags)
    db.execute("insert into video_tags values (%s, %s)", (video, tag))
    refresh(db)
    after = assert_fresh(db)
    changed = {
        key.split()[1] for key in after if after[key] != before.get(key) and key.split()[0] in ("features", "user")
    }
    likers = {str(u) for u, v, d, _ in WORLD.decisions if v == video and d == "like"}
    assert len(likers) > 3
    assert changed == likers


# New value of a column of videos, different for each number.
PLACES_ALONE = {
    "title": "'Island {}'",
    "description": "'東京の夏 {}'",
    "duration_seconds": "{}",
    "product_released_at": "timestamptz '2020-01-01' + {} * interval '1 day'",
    "distribution_started_at": "timestamptz '2021-01-01' + {} * interval '1 day'",
}
MAKES_USERS = {
    "maker": "'maker {}'",
    "label": "'label {}'",
    "series": "'series {}'",
    "source": "'of {}'",
    "price": "{}",
}


def test_i7_only_users_whose_inputs_changed_follow_a_changed_video(db: Connection) -> None:
    """Each column alone and together with another; two videos in one statement count separately."""
    deciders: dict[UUID, set[UUID]] = {}
    for user, decided, kind, _ in WORLD.decisions:
        if kind != "skip":
            deciders.setdefault(decided, set()).add(user)
    video, other = sorted(deciders, key=lambda v: -len(deciders[v]))[:2]
    columns = PLACES_ALONE | MAKES_USERS
    names = list(columns)
    changes = [{name} for name in names] + [{name, names[(at * 3 + 2) % len(names)]} for at, name in enumerate(names)]
    for number, changed in enumerate(changes, 100):
        values = ", ".join(f"{name} = {columns[name].format(number)}" for name in changed)
        db.execute(f"update videos set {values} where id = %s".encode(), (video,))
        reaches = not changed <= PLACES_ALONE.keys()
        logged = db.execute("select video_id, reaches_users from two_tower.video_changes").fetchall()
        assert logged == [(video, reaches)], changed
        assert refreshed(db)["users"] == (len(deciders[video]) if reaches else 0), changed
    db.execute(
        """update videos set title = 'Another title', maker = case when id = %s then 'maker y' else maker end
        where id = any (%s)""",
        (other, [video, other]),
    )
    assert refreshed(db)["users"] == len(deciders[other])
    # Row by row, as by a subscription, columns that the towers do not read are not distinguished from inputs of users.
    for values, reaches in (("title = 'As another server has it'", False), ("thumbnail_url = 'x', title = 'x'", True)):
        db.execute("set session_replication_role = replica")
        db.execute(f"update videos set {values} where id = %s".encode(), (video,))
        db.execute("reset session_replication_role")
        assert refreshed(db)["users"] == (len(deciders[video]) if reaches else 0), values
    assert_fresh(db)


def test_i3_a_rolled_back_transaction_logs_no_change(db: Connection) -> None:
    with db.transaction(force_rollback=True):
        db.execute(CHANGES["likes of many at once"].encode())
        assert pending(db) != (0, 0)
    assert pending(db) == (0, 0)


@pytest.mark.world(models=2)
def test_i3_all_live_versions_are_kept_fresh_and_others_are_not(db: Connection) -> None:
    """A rollback must lose no freshness: standby and staged versions get every change."""
    tiny_model(db, "v3", seed=3, activate=False)
    db.execute("call two_tower.backfill_model('v3')")
    tiny_model(db, "v4", seed=4, activate=False)
    assert one(db, "select two_tower.live_versions()") == ["v1", "v2", "v3"]
    db.execute(CHANGES["like"].encode())
    done = refreshed(db)
    assert (done["users"], done["vectors"]) == (1, 3)
    found = assert_fresh(db)
    assert len({found[f"user {USER} {version}"][0] for version in ("v1", "v2", "v3")}) == 3
    assert f"user {USER} v4" not in found


def test_i3_a_refresh_without_any_model_keeps_features(database: NewDatabase) -> None:
    with psycopg.connect(database(), autocommit=True) as db:
        load(db, WORLD)
        refresh(db)
        assert one(db, "select count(*) from public.user_features") == len(WORLD.users) - 2
        assert pending(db) == (0, 0)
        # Registered later, a model finds everything.
        tiny_model(db)
        assert_fresh(db)


def rows_written(db: Connection) -> int:
    """Rows ever written to all tables of this database, including those by this backend."""
    db.execute("select pg_stat_force_next_flush()")
    return int(one(db, "select sum(n_tup_ins + n_tup_upd + n_tup_del) from pg_stat_user_tables"))


def test_an_empty_log_does_nothing(db: Connection) -> None:
    """An idle run, as of pg_cron every minute, writes no row in any table."""
    refresh(db)
    before = rows_written(db)
    for _ in range(3):
        refresh(db)
    assert rows_written(db) == before
    assert one(db, "select two_tower.sync_user_embeddings('1 second')")["users"] == 0
    assert one(db, "select two_tower.sync_video_embeddings()")["videos"] == 0
    assert rows_written(db) > before  # a row in the job log


# -------------------------------------------------------------------------------------------- I1, I7: equal bits, cost


@pytest.mark.parametrize(("kind", "ids"), [("user", WORLD.users), ("video", WORLD.videos)])
def test_i1_vectors_do_not_depend_on_the_batch_size(kind: str, ids: list[Any], db: Connection) -> None:
    query = f"select {kind}_id, embedding::text from two_tower.embed_{kind}s(%s)"
    together = dict(db.execute(query.encode(), (ids,)).fetchall())
    assert len(together) == len(ids) - (3 if kind == "user" else 0)
    for start, size in [(0, 1), (1, 1), (7, 1), (5, 2), (9, 7), (11, 63), (20, 29)]:
        apart = dict(db.execute(query.encode(), (ids[start : start + size],)).fetchall())
        assert apart == {k: together[k] for k in ids[start : start + size] if k in together}
    stored = dict(db.execute(f"select {kind}_id, embedding::text from {kind}_embeddings".encode()).fetchall())
    assert stored == together


def test_i1_a_vector_is_the_same_in_every_backend_and_at_any_time(db: Connection, connect: Connect) -> None:
    query = "select user_id, embedding::text from two_tower.embed_users(%s) order by 1"
    first = db.execute(query, (WORLD.users,)).fetchall()
    assert connect().execute(query, (WORLD.users[::-1],)).fetchall() == first
    assert db.execute(query, (WORLD.users * 2,)).fetchall() == first


def test_i7_a_refresh_costs_what_changed(db: Connection) -> None:
    db.execute(CHANGES["like"].encode())
    assert refreshed(db) == {"users": 1, "videos": 0, "vectors": 1, "failed": 0}
    # A video of one liker: the video, and that liker.
    likers = [v for v in WORLD.videos if sum(d[1] == v and d[2] != "skip" for d in WORLD.decisions) == 2]
    db.execute("update videos set maker = 'maker q' where id = %s", (likers[0],))
    done = refreshed(db)
    assert (done["videos"], done["users"]) == (1, 2)


TABLES = ("two_tower.user_embeddings", "two_tower.video_embeddings", "two_tower.video_tastes", "public.user_features")


def stamps(db: Connection) -> dict[str, Any]:
    """The transaction that wrote each row of the tables that refreshes write."""
    return {table: one(db, f"select array_agg(t.xmin::text order by t.*) from {table} t") for table in TABLES}


def test_i7_a_refresh_of_equal_inputs_writes_no_vector(db: Connection) -> None:
    """Everything is marked, and nothing has changed."""
    before = stamps(db)
    db.execute("insert into two_tower.user_changes (user_id) select user_id from public.user_features")
    db.execute("insert into two_tower.video_changes (video_id) select id from public.videos")
    done = refreshed(db)
    assert (done["users"], done["videos"], done["vectors"], done["failed"]) == (48, len(WORLD.videos), 0, 0)
    assert stamps(db) == before


def test_i7_changes_outside_the_model_inputs_rewrite_no_vector(db: Connection) -> None:
    """The tag is new to the model: features change, vectors do not."""
    db.execute("insert into tags values (%s, 'new')", (NOBODY,))
    before = one(db, "select array_agg(xmin::text order by user_id) from two_tower.user_embeddings")
    db.execute("insert into video_tags values (%s, %s)", (LIKED, NOBODY))
    assert refreshed(db)["vectors"] == 0
    assert one(db, "select liked_tags ? %s from user_features where user_id = %s", str(NOBODY), WORLD.one_like)
    assert one(db, "select array_agg(xmin::text order by user_id) from two_tower.user_embeddings") == before


def test_a_time_box_and_a_number_of_batches_end_a_refresh(db: Connection) -> None:
    db.execute(CHANGES["price"].encode())
    db.execute("call two_tower.refresh(max_duration => '-1 second')")
    assert pending(db)[1] == len(WORLD.videos)
    db.execute("call two_tower.refresh(max_batches => 1)")
    assert pending(db)[0] > 0
    refresh(db)
    assert_fresh(db)


# -------------------------------------------------------------------------------------------- I4: nobody waits


@pytest.fixture
def impatient(connect: Connect) -> Connection:
    """A connection that fails instead of waiting."""
    connection = connect()
    connection.execute("set lock_timeout = '300ms'; set statement_timeout = '10s'")
    return connection


def test_i4_writes_do_not_wait_for_an_open_refresh_transaction(
    db: Connection, connect: Connect, impatient: Connection
) -> None:
    """Same user, same video, same rows of the log: all writes of a client succeed."""
    for change in ("like", "tagged", "price", "first like"):
        db.execute(CHANGES[change].encode())
    refresher = connect(autocommit=False)
    for kind in ("videos", "users"):
        result = one(refresher, "select result from two_tower.refresh_batch()")
        assert result[kind] > 0
    other = min(v for v in WORLD.videos if v not in WORLD.decided(USER) and v != UNDECIDED)
    for write in (
        f"insert into user_video_decisions values ('{USER}', '{other}', 'like')",
        f"insert into user_video_decisions values ('{WORLD.no_decisions}', '{other}', 'like')",
        f"update user_video_decisions set decision_type = 'nope' where user_id = '{USER}' and video_id = '{UNDECIDED}'",
        f"delete from user_video_decisions where user_id = '{WORLD.one_like}'",
        f"update videos set maker = 'maker w', price = 1 where id = '{LIKED}'",
        f"delete from video_tags where video_id = '{LIKED}'",
        f"delete from videos where id = '{WORLD.videos[9]}'",
    ):
        impatient.execute(write.encode())
    refresher.commit()
    assert pending(db) != (0, 0)
    refresh(db)
    assert_fresh(db)


def test_i4_a_refresh_does_not_wait_for_writers(db: Connection, connect: Connect, impatient: Connection) -> None:
    writer = connect(autocommit=False)
    writer.execute(CHANGES["like"].encode())
    writer.execute(f"update videos set maker = 'maker w' where id = '{LIKED}'".encode())
    refresh(impatient)
    writer.commit()
    assert pending(db) != (0, 0)
    refresh(impatient)
    assert_fresh(db)


def test_i4_refreshes_commit_asynchronously_and_restore_the_session(db: Connection) -> None:
    db.execute("""create table public.seen (commits text);
        create function public.look() returns trigger language plpgsql as
        $f$ begin insert into public.seen values (current_setting('synchronous_commit')); return null; end $f$;
        create trigger look after insert or update on user_features
            for each statement execute function public.look()""")
    db.execute("set synchronous_commit = on")
    db.execute(CHANGES["like"].encode())
    refresh(db)
    assert set(column(db, "select commits from public.seen")) == {"off"}
    assert one(db, "show synchronous_commit") == "on"


def test_i4_a_refresh_skips_users_locked_by_another(db: Connection, connect: Connect, impatient: Connection) -> None:
    db.execute(CHANGES["like"].encode())
    holder = connect(autocommit=False)
    assert one(holder, "select two_tower.collect_user_changes()") == 1
    assert one(holder, "select result from two_tower.refresh_batch()")["users"] == 1
    # More changes of the same user, and of another one.
    db.execute(CHANGES["decisions change hands"].encode())
    db.execute(f"delete from user_video_decisions where user_id = '{USER}' and decision_type = 'nope'".encode())
    refresh(impatient)
    assert pending(db)[0] == 1, "the other users are done; the held one is left to its holder"
    holder.commit()
    refresh(db)
    assert_fresh(db)


def test_i3_a_like_committed_during_a_refresh_is_in_the_next_one(db: Connection, connect: Connect) -> None:
    """The interleaving: log row one, taken and read; log row two; the first refresh commits."""
    first, second = [v for v in WORLD.videos if v not in WORLD.decided(USER)][:2]
    like = "insert into user_video_decisions values (%s, %s, 'like')"
    db.execute(like, (USER, first))
    refresher = connect(autocommit=False)
    refresher.execute("select two_tower.collect_user_changes()")
    refresher.execute("select two_tower.refresh_batch()")
    db.execute(like, (USER, second))
    refresher.commit()
    assert one(db, "select %s = any (liked_video_ids) from user_features where user_id = %s", first, USER)
    assert pending(db) == (1, 0)
    refresh(db)
    assert one(db, "select %s = any (liked_video_ids) from user_features where user_id = %s", second, USER)
    assert_fresh(db)


def test_i3_i4_collecting_the_log_blocks_nobody_and_loses_nothing(
    db: Connection, connect: Connect, client: Client, impatient: Connection
) -> None:
    """The interleaving: one collects; another collects, embeds, likes; the first is rolled back."""
    first, second = [v for v in WORLD.videos if v not in WORLD.decided(USER)][:2]
    like = "insert into user_video_decisions values (%s, %s, 'like')"
    db.execute(like, (USER, first))
    holder = connect(autocommit=False)
    assert one(holder, "select two_tower.collect_user_changes()") == 1
    assert one(impatient, "select two_tower.collect_user_changes()") == 0
    impatient.execute(like, (USER, second))
    with client.as_("authenticated", USER) as own:
        own.execute("set lock_timeout = '200ms'")
        own.execute("select public.embed_user()")
    assert one(db, "select count(*) from two_tower.user_change_log") == 1, "what the holder has is left alone"
    holder.rollback()
    assert pending(db) == (1, 0)
    refresh(db)
    assert_fresh(db)


def test_embed_user_leaves_users_in_a_long_log_to_the_refresh(db: Connection, client: Client) -> None:
    """Searching a log without an index for one user takes longer, the longer the log is."""
    video = next(v for v in WORLD.videos if v not in WORLD.decided(USER))
    db.execute("insert into two_tower.user_change_log select gen_random_uuid() from generate_series(1, 25000)")
    db.execute("insert into user_video_decisions values (%s, %s, 'like')", (USER, video))
    with client.as_("authenticated", USER) as own:
        own.execute("select public.embed_user()")
    db.execute("delete from two_tower.user_change_log where user_id <> %s", (USER,))
    before = state(db)
    assert pending(db) == (1, 0)
    refresh(db)
    assert state(db) == before
    assert_fresh(db)


def test_refresh_works_with_a_publication_for_all_tables(db: Connection) -> None:
    """Rows of a published table without a key or another identity cannot be deleted."""
    db.execute("create publication everything for all tables")
    db.execute(CHANGES["like"].encode())
    assert pending(db) == (1, 0)
    refresh(db)
    assert_fresh(db)


def test_i3_a_transaction_that_spans_a_refresh_is_not_lost(db: Connection, connect: Connect) -> None:
    """Values of the log's sequence are not in the order of commits."""
    slow = connect(autocommit=False)
    slow.execute(CHANGES["nope taken back"].encode())
    db.execute(CHANGES["like"].encode())
    refresh(db)
    assert pending(db) == (0, 0)
    slow.commit()
    assert pending(db) == (1, 0)
    refresh(db)
    assert_fresh(db)


# -------------------------------------------------------------------------------------------- several workers


def crowd(db: Connection, size: int) -> None:
    """``size`` more users with three likes each."""
    users = [ident("crowd", n) for n in range(size)]
    copy_rows(db, "auth.users (id)", [(u,) for u in users])
    rows = [
        (u, WORLD.videos[(n * 7 + k * 31) % len(WORLD.videos)], "like", EPOCH + timedelta(hours=n + k))
        for n, u in enumerate(users)
        for k in range(3)
    ]
    copy_rows(db, "public.user_video_decisions (user_id, video_id, decision_type, created_at)", rows)


def side_by_side(*work: Callable[[], object]) -> None:
    with ThreadPoolExecutor(len(work)) as pool:
        for future in [pool.submit(w) for w in work]:
            future.result(timeout=120)


def test_i3_two_concurrent_refreshes_lose_nothing(db: Connection, connect: Connect) -> None:
    crowd(db, 1200)
    db.execute(CHANGES["price"].encode())
    workers = [connect(), connect()]
    started = one(db, "select coalesce(max(id), 0) from two_tower.job_log")
    side_by_side(*[lambda c=c: refresh(c) for c in workers])
    # Each skips users that the other has locked; changes that were not committed by the end are for the next refresh.
    refresh(db)
    rows = column(db, "select result from two_tower.job_log where job = 'refresh' and id > %s", started)
    assert sum(r["failed"] for r in rows) == 0
    assert_fresh(db)


@pytest.mark.soak
def test_i3_likes_at_full_speed_while_two_refreshers_run(db: Connection, connect: Connect) -> None:
    stop = threading.Event()
    clients, refreshers = [connect() for _ in range(3)], [connect() for _ in range(2)]

    def like(at: int) -> None:
        connection = clients[at]
        connection.execute("set lock_timeout = '5s'")
        kinds = ("like", "nope", "skip")
        for n in range(120):
            connection.execute(
                """insert into user_video_decisions values (%s, %s, %s)
                on conflict (user_id, video_id) do update set decision_type = excluded.decision_type""",
                (
                    WORLD.users[(n * 3 + at) % len(WORLD.users)],
                    WORLD.videos[(n * 11 + at * 5) % len(WORLD.videos)],
                    kinds[(n + at) % 3],
                ),
            )
            if n % 10 == at:
                connection.execute("update videos set price = %s where id = %s", (n, WORLD.videos[n]))
            if n % 7 == at:
                connection.execute("delete from user_video_decisions where user_id = %s", (WORLD.users[n % 50],))

    def drain(connection: Connection) -> None:
        while not stop.is_set():
            refresh(connection)

    def work() -> None:
        try:
            side_by_side(*[lambda at=at: like(at) for at in range(3)])
        finally:
            stop.set()

    side_by_side(work, *[lambda c=c: drain(c) for c in refreshers])
    refresh(db)
    assert_fresh(db)


# -------------------------------------------------------------------------------------------- failures


def test_a_user_whose_refresh_fails_is_set_aside_and_retried(db: Connection) -> None:
    """With a weight so large that two likes of its tag overflow, inference fails for users who have them."""
    carriers = sorted(v for v, t in WORLD.video_tags if t == WORLD.rare_tag)
    db.execute("delete from user_video_decisions where video_id = any (%s)", (carriers,))
    db.execute("insert into user_video_decisions values (%s, %s, 'like')", (MANY, carriers[0]))
    model = tiny_model(db, "poison", seed=9, engine="onnxruntime")
    segment = model.schema.segment("user", "liked_tags")
    with torch.no_grad():
        model.user_tower.weight[segment.offset + model.vocabularies["tag"].index(str(WORLD.rare_tag))] = 3e38
    with db.transaction():
        # No such model can be registered, but a superuser can change one.
        db.execute("set local session_replication_role = replica")
        db.execute(
            "update two_tower.model_files set content = %s where model_version = 'poison' and name = 'user_tower.onnx'",
            (user_graph(model.user_tower),),
        )

    for carrier in carriers:
        db.execute("insert into user_video_decisions values (%s, %s, 'like')", (USER, carrier))
    db.execute("insert into user_video_decisions values (%s, %s, 'like')", (WORLD.no_decisions, VIDEO))
    done = refreshed(db)
    assert (done["users"], done["failed"]) == (2, 1)
    (failure,) = db.execute("select kind, id, sqlstate, attempts, error from two_tower.failed_changes").fetchall()
    assert failure[:4] == ("user", USER, "22023", 1)
    assert "not finite" in failure[4]
    assert one(db, "select failed_changes from two_tower.status") == 1
    # All others are refreshed, and the failure is not retried at once.
    assert one(db, "select count(*) from user_embeddings where user_id = %s", WORLD.no_decisions) == 1
    assert pending(db) == (0, 0)
    assert refreshed(db)["users"] == 0

    # When it is due, it is retried, fails, and is delayed further.
    db.execute("update two_tower.change_failures set retry_at = now()")
    assert refreshed(db)["failed"] == 1
    again = db.execute("select attempts, retry_at - failed_at > '90 seconds' from two_tower.failed_changes").fetchall()
    assert again == [(2, True)]

    # Without the cause, the failure disappears.
    db.execute("delete from user_video_decisions where video_id = any (%s)", (carriers,))
    assert refreshed(db)["failed"] == 0
    assert_fresh(db)


def test_a_video_whose_refresh_fails_is_set_aside_with_its_likers(db: Connection) -> None:
    poison(db, LIKED)
    db.execute("insert into user_video_decisions values (%s, %s, 'like')", (WORLD.no_decisions, VIDEO))
    refresh(db)
    failed = set(column(db, "select id from two_tower.failed_changes"))
    assert failed == {LIKED} | {u for u, v, d, _ in WORLD.decisions if v == LIKED and d != "skip"}
    assert one(db, "select count(*) from user_embeddings where user_id = %s", WORLD.no_decisions) == 1
    heal(db)
    db.execute("update videos set price = 10 where id = %s", (LIKED,))
    refresh(db)
    assert_fresh(db)


# -------------------------------------------------------------------------------------------- any history

SMALL = make_world(40, 12, seed=5)

HOLDS = {
    "a deletion": "delete from auth.users where id = %s",
    "a user's row": "select 1 from auth.users where id = %s for update",
    "a user's decisions": "select 1 from user_video_decisions where user_id = %s for update",
    "a like": "insert into user_video_decisions select %s, id, 'like' from videos order by id limit 1"
    " on conflict (user_id, video_id) do update set decision_type = 'nope'",
}
"""Uncommitted changes of an application."""

users, videos = st.sampled_from(SMALL.users), st.sampled_from(SMALL.videos)
tags, performers = st.sampled_from(SMALL.tags[:6]), st.sampled_from(SMALL.performers[:4])
operations = st.one_of(
    st.tuples(
        st.just(
            "insert into user_video_decisions values (%s, %s, %s, %s) on conflict (user_id, video_id) "
            "do update set decision_type = excluded.decision_type, created_at = excluded.created_at"
        ),
        users, videos, st.sampled_from(["like", "nope", "skip"]), st.sampled_from([EPOCH, EPOCH + timedelta(days=40)]),
    ),
    st.tuples(st.just("delete from user_video_decisions where user_id = %s and video_id = %s"), users, videos),
    st.tuples(st.just("delete from user_video_decisions where user_id = %s"), users),
    st.tuples(st.just("update user_video_decisions set decision_type = 'like' where video_id = %s"), videos),
    st.tuples(st.just("insert into video_tags values (%s, %s) on conflict do nothing"), videos, tags),
    st.tuples(st.just("delete from video_tags where tag_id = %s"), tags),
    st.tuples(st.just("insert into video_performers values (%s, %s) on conflict do nothing"), videos, performers),
    st.tuples(st.just("delete from video_performers where video_id = %s"), videos),
    st.tuples(
        st.just("update videos set maker = %s where id = %s"), st.sampled_from(["maker a", "", None, "new"]), videos
    ),
    st.tuples(st.just("update videos set price = %s where id = %s"), st.sampled_from([0, 0.1, 33.3, None]), videos),
    st.tuples(st.just("update videos set title = %s where id = %s"), st.sampled_from(["Ocean island", "b"]), videos),
    st.tuples(st.just("delete from videos where id = %s"), videos),
    st.tuples(
        st.just(
            "insert into videos (id, product_url, title, maker) values (%s, gen_random_uuid(), '', 'maker b') "
            "on conflict do nothing"
        ),
        videos,
    ),
    st.tuples(st.just("delete from auth.users where id = %s"), users),
    st.tuples(st.just("insert into auth.users (id) values (%s) on conflict do nothing"), users),
    st.tuples(st.just("truncate user_video_decisions")),
    st.tuples(st.just("truncate video_tags")),
    st.tuples(st.just("embed"), users, st.sampled_from(["read committed", "repeatable read", "serializable"])),
    st.tuples(st.just("from now on"), st.sampled_from(["read committed", "repeatable read", "serializable"])),
    st.tuples(st.just("replicating"), st.booleans()),
    st.tuples(st.just("hold"), st.sampled_from(sorted(HOLDS)), users),
    st.tuples(st.just("let go")),
    st.tuples(st.just("behind the triggers"), users, videos, st.sampled_from(["like", "nope"])),
    st.tuples(st.just("another version")),
    st.tuples(st.just("retire")),
    st.tuples(st.just("refresh")),
    st.tuples(st.just("two refreshes")),
    st.tuples(st.just("one batch")),
)  # fmt: skip


class Lab:
    """A database on which histories are played one after another."""

    def __init__(self, dsn: str, engine: str = ENGINE) -> None:
        self.db, self.application, *self.workers = (psycopg.connect(dsn, autocommit=True) for _ in range(4))
        self.engine = engine
        self.number = 1
        load(self.db, SMALL)
        tiny_model(self.db, engine=engine)
        # Waiting for locks of the application fails, since it holds them until let_go().
        self.db.execute("set lock_timeout = '200ms'")

    def play(self, statement: str, *values: Any) -> None:
        match statement:
            case "refresh":
                refresh(self.db)
            case "one batch":
                self.db.execute("call two_tower.refresh(max_batches => 1)")
            case "two refreshes":
                side_by_side(*[lambda c=c: refresh(c) for c in self.workers])
            case "embed":
                self.embed(*values)
            case "from now on":
                for connection in (self.db, *self.workers):
                    connection.execute(f"set default_transaction_isolation = '{values[0]}'".encode())
            case "replicating":
                role = "replica" if values[0] else "origin"
                self.db.execute(f"set session_replication_role = {role}".encode())
            case "hold":
                self.let_go()
                self.application.execute("begin")
                with suppress(errors.ForeignKeyViolation):
                    self.application.execute(HOLDS[values[0]].encode(), (values[1],))
            case "let go":
                self.let_go()
            case "behind the triggers":
                self.behind(*values)
            case "another version":
                self.another()
            case "retire":
                for version in self.db.execute(
                    "select version from two_tower.model_versions where state in ('standby', 'staged') limit 1"
                ).fetchall():
                    self.db.execute("select two_tower.retire_model(%s)", version)
            case _:
                # The user or video was deleted, or the application has it locked.
                with suppress(errors.ForeignKeyViolation, errors.LockNotAvailable):
                    self.db.execute(statement.encode(), values)

    def let_go(self) -> None:
        """Ends the application's transaction."""
        if self.application.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            self.application.execute("commit")

    def embed(self, user: Any, level: str) -> None:
        """A client calls embed_user() in a transaction that has already read."""
        worker = self.workers[0]
        with suppress(errors.NoDataFound, errors.LockNotAvailable, errors.SerializationFailure), worker.transaction():
            worker.execute(f"set transaction isolation level {level}".encode())
            worker.execute("set local lock_timeout = '200ms'")
            worker.execute("select set_config('request.jwt.claims', %s, true)", (f'{{"sub": "{user}"}}',))
            worker.execute("select count(*) from user_video_decisions")
            refresh(self.db)
            worker.execute("select public.embed_user()")

    def behind(self, user: Any, video: Any, kind: str) -> None:
        """A write for which no trigger fires, followed by a comparison of everything."""
        self.let_go()
        table = "alter table public.user_video_decisions"
        self.db.execute(f"{table} disable trigger user".encode())
        self.play(
            "insert into user_video_decisions values (%s, %s, %s) on conflict (user_id, video_id) "
            "do update set decision_type = excluded.decision_type",
            user, video, kind,
        )  # fmt: skip
        for name, how in (("insert", ""), ("update", ""), ("delete", ""), ("truncate", "always"), ("row", "replica")):
            self.db.execute(f"{table} enable {how} trigger two_tower_{name}".encode())
        verification.repair(self.db, verification.verify(self.db, lambda what, share: None))

    def another(self) -> None:
        """Adds one more version meanwhile: attached, filled, active."""
        self.let_go()
        self.number += 1
        version = f"v{self.number}"
        tiny_model(self.db, version, seed=self.number, activate=False, engine=self.engine)
        self.db.execute("call two_tower.backfill_model(%s, true)", (version,))


@pytest.fixture
def lab(database: NewDatabase) -> Iterator[Lab]:
    made = Lab(database())
    yield made
    for connection in (made.db, made.application, *made.workers):
        connection.close()


def histories(number: int) -> settings:
    return settings(
        max_examples=number, derandomize=True, deadline=None, database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )  # fmt: skip


@histories(12)
@given(history=st.lists(operations, min_size=4, max_size=14))
def test_i3_any_history_ends_as_a_rebuild_would_have_it(lab: Lab, history: list[tuple[Any, ...]]) -> None:
    play(lab, history)


@pytest.mark.soak
@histories(60)
@given(history=st.lists(operations, min_size=4, max_size=14))
def test_i3_many_histories_end_as_rebuilds_would_have_them(lab: Lab, history: list[tuple[Any, ...]]) -> None:
    play(lab, history)


def play(lab: Lab, history: list[tuple[Any, ...]]) -> None:
    for statement, *values in history:
        lab.play(statement, *values)
    lab.let_go()
    for _ in range(2):  # locked changes are left for the next one
        refresh(lab.db)
    lab.play("replicating", False)
    assert_fresh(lab.db)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
@settings(
    max_examples=int(os.environ.get("SOAK_HISTORIES", "1500")), deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(history=st.lists(operations, min_size=10, max_size=40))
def test_i3_any_long_history_ends_as_a_rebuild_would_have_it(lab: Lab, history: list[tuple[Any, ...]]) -> None:
    """`make soak` draws ``SOAK_HISTORIES`` new histories in each run."""
    play(lab, history)


# -------------------------------------------------------------------------------------------- embed_user and syncs


def own_vector(db: Connection) -> str:
    return str(one(db, "select embedding::text from public.user_embeddings where user_id = %s", USER))


def test_embed_user_makes_the_callers_vector_fresh_before_it_returns(db: Connection, client: Client) -> None:
    before = own_vector(db)
    with client.as_("authenticated", USER) as connection:
        connection.execute("insert into user_video_decisions values (%s, %s, 'like')", (USER, UNDECIDED))
    db.execute(CHANGES["first like"].encode())
    (answer,) = client.rpc("authenticated", USER, "embed_user")
    message = "features and embedding updated"
    assert answer == {"success": True, "user_id": str(USER), "message": message, "model_version": "v1"}
    assert own_vector(db) != before
    assert pending(db) == (1, 0), "the other user is left to the refresh"
    assert one(db, "select %s = any (liked_video_ids) from user_features where user_id = %s", UNDECIDED, USER)
    refresh(db)
    assert_fresh(db)


def test_embed_user_says_when_there_was_nothing_to_do(db: Connection, client: Client) -> None:
    stamp = "select xmin::text from two_tower.user_embeddings where user_id = %s"
    before = one(db, stamp, USER)
    assert client.rpc("authenticated", USER, "embed_user")[0]["message"] == "features and embedding were up to date"
    assert client.rpc("authenticated", USER, "embed_user", force=True)[0]["success"]
    assert one(db, stamp, USER) == before, "equal vectors are not rewritten, even by force"
    for user in (WORLD.no_decisions, WORLD.only_skips, WORLD.only_nopes):
        (answer,) = client.rpc("authenticated", user, "embed_user", force=None)
        assert answer["message"] == "no likes to embed"
        assert one(db, "select count(*) from user_embeddings where user_id = %s", user) == 0


def test_embed_user_removes_the_vector_after_the_last_like(db: Connection, client: Client) -> None:
    db.execute("delete from user_video_decisions where user_id = %s", (USER,))
    assert client.rpc("authenticated", USER, "embed_user")[0]["message"] == "no likes to embed"
    refresh(db)
    assert_fresh(db)


def test_embed_user_with_force_repairs_a_wrong_vector(db: Connection, client: Client) -> None:
    right = own_vector(db)
    db.execute(
        """update two_tower.user_embeddings e set embedding = o.embedding from two_tower.user_embeddings o
        where e.user_id = %s and o.user_id = %s""",
        (USER, MANY),
    )
    assert own_vector(db) != right
    client.rpc("authenticated", USER, "embed_user", force=True)
    assert own_vector(db) == right


def test_embed_user_without_a_user_or_a_model_is_an_error(database: NewDatabase, client: Client) -> None:
    with pytest.raises(errors.InvalidAuthorizationSpecification):
        client.rpc("authenticated", None, "embed_user")
    with pytest.raises(errors.InsufficientPrivilege):
        client.rpc("anon", None, "embed_user")
    with pytest.raises(errors.NoDataFound):
        client.rpc("authenticated", NOBODY, "embed_user")
    with psycopg.connect(database()) as bare:
        load(bare, WORLD)
        bare.execute("select set_config('request.jwt.claims', %s, true)", (f'{{"sub": "{USER}"}}',))
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="no model is active"):
            bare.execute("select public.embed_user()")


def test_sync_user_embeddings_marks_those_with_recent_decisions(db: Connection) -> None:
    db.execute(
        "update user_video_decisions set created_at = now() where user_id = any (%s)",
        ([USER, WORLD.one_like, WORLD.only_nopes],),
    )
    db.execute("truncate two_tower.user_change_log, two_tower.user_changes")
    db.execute("truncate two_tower.user_embeddings")
    done = one(db, "select two_tower.sync_user_embeddings('1 hour', 2)")
    assert (done["marked"], done["vectors"]) == (1, 1)
    assert column(db, "select user_id from user_embeddings") == [USER]
    done = one(db, "select two_tower.sync_user_embeddings('1 hour', 1)")
    assert (done["marked"], done["vectors"]) == (2, 1)
    assert one(db, "select two_tower.sync_user_embeddings('100 years', 0)")["vectors"] == len(WORLD.users) - 3 - 2


@pytest.mark.world(models=2)
def test_sync_video_embeddings_marks_videos_without_a_live_vector(db: Connection) -> None:
    db.execute(
        "delete from two_tower.video_embeddings where model_version = 'v1' and video_id = any (%s)", (WORLD.videos[:7],)
    )
    db.execute(
        "delete from two_tower.video_embeddings where model_version = 'v2' and video_id = any (%s)",
        (WORLD.videos[5:9],),
    )
    done = one(db, "select two_tower.sync_video_embeddings()")
    assert (done["marked"], done["videos"], done["vectors"]) == (9, 9, 11)
    assert_fresh(db)


def test_rebuild_repairs_rows_without_a_logged_change(db: Connection) -> None:
    right = state(db)
    db.execute("update user_features set like_count = 99, liked_tags = '{}'")
    db.execute("delete from two_tower.user_embeddings where user_id = %s", (USER,))
    for table, key in (("user_embeddings", "user_id"), ("video_embeddings", "video_id")):
        db.execute(
            f"""insert into two_tower.{table} (model_version, {key}, embedding)
            select model_version, %s, embedding from two_tower.{table} limit 1""".encode(),
            (NOBODY,),
        )
    db.execute(
        """update two_tower.video_embeddings v set embedding = o.embedding from two_tower.video_embeddings o
        where v.video_id = %s and o.video_id = %s""",
        (LIKED, VIDEO),
    )
    db.execute("update two_tower.video_tastes set liked = noped, noped = liked")
    db.execute("delete from two_tower.video_tastes where video_id = %s", (LIKED,))
    if sums(db, "v1"):
        db.execute("insert into two_tower.video_tastes (model_version, video_id) values ('v1', %s)", (NOBODY,))
    db.execute("call two_tower.rebuild()")
    assert state(db) == right


def test_the_status_view_shows_lag_and_coverage(db: Connection) -> None:
    cursor = db.cursor(row_factory=psycopg.rows.dict_row)
    db.execute(CHANGES["like"].encode())
    db.execute(CHANGES["maker"].encode())
    before = cursor.execute("table two_tower.status").fetchone()
    assert before is not None
    assert (before["pending_user_changes"], before["pending_video_changes"]) == (1, 1)
    assert before["lag"] >= timedelta(0)
    refresh(db)
    after = cursor.execute("table two_tower.status").fetchone()
    assert after is not None
    assert (after["pending_user_changes"], after["pending_video_changes"], after["lag"]) == (0, 0, None)
    assert (after["videos"], after["video_vectors"]) == (len(WORLD.videos), len(WORLD.videos))
    assert (after["users_with_likes"], after["user_vectors"]) == (47, 47)
    assert after["last_refresh"] is not None
    assert after["last_error"] is None


def test_popularity_counts_likes_by_age_and_follows_them(db: Connection) -> None:
    """Relative to the newest like, never to the clock."""
    scores = "select jsonb_object_agg(video_id, round(score::numeric, 9)) from two_tower.video_popularity"
    db.execute("select two_tower.update_popularity()")
    found = one(db, scores)
    newest = max(at for _, _, d, at in WORLD.decisions if d == "like")
    expected: dict[str, float] = {}
    for _, video, decision, at in WORLD.decisions:
        if decision == "like":
            expected[str(video)] = expected.get(str(video), 0) + 0.5 ** ((newest - at) / timedelta(days=90))
    assert {k: float(v) for k, v in found.items()} == pytest.approx(expected)
    db.execute("update user_video_decisions set created_at = created_at - interval '1000 days'")
    db.execute("select two_tower.update_popularity()")
    assert one(db, scores) == found
    db.execute("update user_video_decisions set decision_type = 'nope'")
    db.execute("select two_tower.update_popularity()")
    assert one(db, "select count(*) from two_tower.video_popularity") == 0


def test_popularity_is_never_older_than_a_day_where_refreshes_run(db: Connection) -> None:
    """It needs no change: likes that an earlier refresh has seen count, too."""
    runs = "select count(*) from two_tower.job_runs where job = 'update_popularity'"
    db.execute("delete from two_tower.job_runs; delete from two_tower.video_popularity")
    refresh(db)
    popular = one(db, "select count(*) from two_tower.video_popularity")
    assert popular > 0
    db.execute("delete from two_tower.video_popularity")
    refresh(db)
    assert (one(db, runs), one(db, "select count(*) from two_tower.video_popularity")) == (1, 0)
    db.execute("update two_tower.job_runs set started_at = started_at - interval '25 hours'")
    refresh(db)
    assert (one(db, runs), one(db, "select count(*) from two_tower.video_popularity")) == (2, popular)


def test_the_world_has_the_users_that_tests_rely_on() -> None:
    """Assumptions of the cases above about the world."""
    assert isinstance(WORLD, World)
    assert len(WORLD.of(USER, "like")) >= 2
    assert len(WORLD.of(WORLD.one_like, "like")) == 1
    assert not WORLD.decided(WORLD.no_decisions)
    assert UNDECIDED not in WORLD.decided(USER)
