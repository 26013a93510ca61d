"""For all writers and interleavings of transactions, a refresh equals a rebuild (I3), and nobody waits (I4)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb
from typer.testing import CliRunner

from conftest import Connect, Connection, NewDatabase
from test_refresh import assert_fresh, sums
from two_tower.cli.main import app
from two_tower.data.imports import ImportOptions, ImportSummary, import_catalog, import_decisions, import_reviews
from two_tower.ids import user_uuid
from two_tower.lifecycle import verify
from two_tower.server import migrate
from world_fixtures import State, column, make_world, one, random_model, refresh, register, schema_of, state, tiny_model

pytestmark = pytest.mark.world

WORLD = make_world()
USER, OTHER = WORLD.usual, WORLD.many
DECIDED = WORLD.decided(USER) | WORLD.decided(OTHER)
UNDECIDED = [v for v in WORLD.videos if v not in DECIDED]
LIKED = min(WORLD.of(USER, "like"))
LIKE = "insert into public.user_video_decisions values (%s, %s, 'like')"
LEVELS = {
    "read committed": psycopg.IsolationLevel.READ_COMMITTED,
    "repeatable read": psycopg.IsolationLevel.REPEATABLE_READ,
    "serializable": psycopg.IsolationLevel.SERIALIZABLE,
}


@contextmanager
def meanwhile(work: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Runs ``work`` in another thread; it must have ended without an error by the end of the block."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        yield future
        future.result(timeout=60)


def as_user(connection: Connection, user: UUID) -> None:
    """Makes ``connection`` act for ``user`` until its transaction ends."""
    connection.execute("select set_config('request.jwt.claims', %s, true)", (json.dumps({"sub": str(user)}),))


def until(db: Connection, condition: str) -> None:
    """Waits until a query returns true."""
    deadline = time.monotonic() + 30
    while not one(db, condition):
        assert time.monotonic() < deadline, condition
        time.sleep(0.01)


# --------------------------------------------------------------- rows 2 and 3: versions attached and retired meanwhile

WRITERS = {
    "embed_user": "select public.embed_user()",
    "sync_user_embeddings": "select two_tower.sync_user_embeddings('100 years')",
    "sync_video_embeddings": "select two_tower.sync_video_embeddings()",
    "refresh_batch": "select two_tower.collect_user_changes(), two_tower.refresh_batch()",
    "rebuild_batch": "select two_tower.rebuild_batch('user')",
    "backfill_batch": "select two_tower.backfill_batch('v1', 'user')",
}
"""Everything that writes vectors within its caller's transaction."""


@pytest.mark.sampled(1)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("writer", WRITERS)
def test_row_2_a_transaction_older_than_an_attach_misses_no_vector(
    writer: str, level: str, db: Connection, connect: Connect
) -> None:
    register(db, random_model(schema_of(db), seed=2), "v2")
    older = connect(autocommit=False)
    older.isolation_level = LEVELS[level]
    as_user(older, WORLD.no_decisions)
    db.execute(LIKE, (WORLD.no_decisions, UNDECIDED[0]))
    older.execute(WRITERS[writer].encode())
    with meanwhile(lambda: connect().execute("call two_tower.backfill_model('v2')")) as backfill:
        try:
            until(db, "select to_regclass('two_tower.video_embeddings_2_hnsw') is not null")
            time.sleep(0.2)
            assert not backfill.done()
            # An attach that waits delays neither likes, nor lists, nor embed_user().
            client = connect(autocommit=False)
            client.execute("set lock_timeout = '200ms'")
            for at in range(5):
                client.execute(LIKE, (WORLD.one_like, UNDECIDED[at]))
                as_user(client, WORLD.one_like)
                client.execute("select count(*) from public.recommend_videos(5)")
                if writer not in ("sync_user_embeddings", "rebuild_batch"):  # these have refreshed everybody
                    client.execute("select public.embed_user()")
                client.commit()
        finally:
            older.commit()
    refresh(db)
    assert_fresh(db)
    assert one(db, "select two_tower.activate_model('v2') ->> 'changed'") == "true"


@pytest.mark.sampled(2)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("begins", ["before it is staged", "while it is filled"])
@pytest.mark.parametrize("change", ["own", "somebody's", "truncate"])
def test_row_2_a_change_that_is_refreshed_during_a_backfill_is_in_the_new_version(
    change: str, begins: str, level: str, db: Connection, connect: Connect
) -> None:
    """Refreshed in a transaction that is open meanwhile, and that may have made the change itself."""
    register(db, random_model(schema_of(db), seed=2), "v2")
    changed = WORLD.videos[::40]

    def make(connection: Connection) -> None:
        if change == "truncate":
            connection.execute("truncate public.videos cascade")
        else:
            connection.execute("update public.videos set maker = 'maker c' where id = any (%s)", (changed,))

    if change == "somebody's":
        make(db)
    older = connect(autocommit=False)
    older.isolation_level = LEVELS[level]
    older.execute("select count(*) from two_tower.model_versions")
    if change == "own" and begins == "before it is staged":
        make(older)
        older.execute("select two_tower.refresh_now()")
    db.execute("select two_tower.stage_model('v2', true)")
    done = 0
    if begins == "while it is filled" or change != "own":
        while step := one(db, "select (two_tower.backfill_batch('v2', 'video', null, 50)).done"):
            done += step
        assert done == len(WORLD.videos)
        if change != "somebody's":
            make(older)
        older.execute("select two_tower.refresh_now()")
    with meanwhile(lambda: connect().execute("call two_tower.backfill_model('v2')")) as backfill:
        time.sleep(0.2)
        assert not backfill.done()
        older.commit()
    refresh(db)
    assert_fresh(db)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.world(models=2)
def test_row_3_a_snapshot_older_than_a_retirement_can_still_write(
    writer: str, level: str, db: Connection, connect: Connect
) -> None:
    older = connect(autocommit=False)
    older.isolation_level = LEVELS[level]
    as_user(older, USER)
    assert one(older, "select count(*) from two_tower.model_versions") == 2
    db.execute("select two_tower.retire_model('v1')")
    db.execute(LIKE, (USER, UNDECIDED[0]))
    older.execute(WRITERS[writer].replace("'v1'", "'v2'").encode())
    older.commit()
    refresh(db)
    assert_fresh(db)


@pytest.mark.soak
def test_row_3_users_embed_themselves_beside_retirements(db: Connection, connect: Connect) -> None:
    """Whichever comes first; formerly the client got 23514, for a missing partition."""
    stop = threading.Event()
    calls: list[int] = []

    def embed(user: UUID) -> None:
        own = connect(autocommit=False)
        while not stop.is_set():
            as_user(own, user)
            own.execute("select public.embed_user(true)")
            own.commit()
            calls.append(1)

    with ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(embed, user) for user in (USER, OTHER, WORLD.one_like)]
        try:
            for number in (2, 3):
                register(db, random_model(schema_of(db), seed=number), f"v{number}")
                db.execute("call two_tower.backfill_model(%s, true)", (f"v{number}",))
                db.execute("select two_tower.retire_model(%s)", (f"v{number}",))
        finally:
            stop.set()
        for client in clients:
            client.result()
    assert len(calls) > 20
    assert_fresh(db)


@pytest.mark.world(models=2)
def test_attach_and_retirement_time_out_behind_an_open_transaction(db: Connection, connect: Connect) -> None:
    register(db, random_model(schema_of(db), seed=3), "v3")
    db.execute("select two_tower.stage_model('v3', true)")
    own = connect(autocommit=False)
    as_user(own, USER)
    own.execute("select public.embed_user()")
    for statement in ("two_tower.attach_partitions('v3', '0')", "two_tower.retire_model('v1', '0')"):
        with pytest.raises(errors.LockNotAvailable):
            db.execute(f"select {statement}".encode())
    own.rollback()
    db.execute("select two_tower.attach_partitions('v3', '0')")
    db.execute("select two_tower.retire_model('v1', '0')")
    assert one(db, "select two_tower.live_versions()") == ["v2", "v3"]


# ------------------------------------------------------------------------- rows 6 to 8: locks of others

HOLDS = {
    "a deletion": "delete from auth.users where id = %s",
    "the user's row": "select 1 from auth.users where id = %s for update",
    "the user's row, as a key": "select 1 from auth.users where id = %s for key share",
    "the user's decisions": "select 1 from public.user_video_decisions where user_id = %s for update",
    "a changed decision": "update public.user_video_decisions set decision_type = 'nope' where user_id = %s",
    "the videos": "select 1 from public.videos, (select %s::uuid) as nobody for update of videos",
}
"""Operations of an application that then keeps its transaction open."""


@pytest.mark.sampled(1)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("hold", HOLDS)
def test_row_6_a_refresh_waits_for_no_row_of_the_application(
    hold: str, known: bool, db: Connection, connect: Connect
) -> None:
    user = USER if known else WORLD.no_decisions
    for liker in (user, OTHER, WORLD.one_like):
        db.execute(LIKE, (liker, UNDECIDED[0]))
    application = connect(autocommit=False)
    application.execute(HOLDS[hold].encode(), (user,))
    hasty = connect()
    hasty.execute("set lock_timeout = '200ms'")
    refresh(hasty)
    # The first features of a user refer to the user's row, and a deletion locks the features' row.
    busy = [user] if hold in ("a deletion", "the user's row") and (hold == "a deletion" or not known) else []
    assert column(db, "select user_id from two_tower.pending_users") == busy
    with hasty.transaction():
        as_user(hasty, OTHER)
        hasty.execute("select public.embed_user()")
    application.commit()
    refresh(hasty)
    assert_fresh(db)


def test_row_6_a_refresh_has_its_own_lock_timeout(db: Connection) -> None:
    """A refresh does not use the session's timeout, and the session keeps its own afterwards."""
    db.execute("""create table public.seen (patience text);
        create function public.look() returns trigger language plpgsql as
        $f$ begin insert into public.seen values (current_setting('lock_timeout')); return null; end $f$;
        create trigger look after insert or update on public.user_features
            for each statement execute function public.look()""")
    for timeout in ("0", "7s"):
        db.execute(f"set lock_timeout = '{timeout}'".encode())
        db.execute(LIKE + " on conflict (user_id, video_id) do update set decision_type = 'nope'", (USER, UNDECIDED[0]))
        refresh(db)
        assert one(db, "show lock_timeout") == timeout
    assert set(column(db, "select patience from public.seen")) == {"100ms"}


def test_row_6_users_can_be_deleted_in_any_order_during_a_refresh(db: Connection, connect: Connect) -> None:
    """A deletion waits at most for a batch, and a batch only briefly for a deletion, so there are no deadlocks."""
    users = sorted([USER, OTHER, WORLD.one_like], reverse=True)
    for user in users:
        db.execute(LIKE, (user, UNDECIDED[0]))
    refresher = connect(autocommit=False)
    refresher.execute("select two_tower.collect_user_changes()")
    assert one(refresher, "select result from two_tower.refresh_batch()")["users"] == len(users)
    application = connect(autocommit=False)
    with ThreadPoolExecutor(1) as pool:
        deleting = pool.submit(
            lambda: [application.execute("delete from auth.users where id = %s", (user,)) for user in users]
        )
        time.sleep(0.2)
        refresher.commit()
        deleting.result(timeout=30)
    application.commit()
    refresh(db)
    assert_fresh(db)
    assert column(db, "select user_id from public.user_features where user_id = any (%s)", users) == []


def test_row_7_refreshes_go_on_behind_an_open_sync_of_more_than_a_batch(db: Connection, connect: Connect) -> None:
    first, second = sorted(WORLD.videos)[:20], sorted(WORLD.videos)[20:25]
    db.execute("update public.videos set price = coalesce(price, 0) + 1 where id = any (%s)", (first,))
    slow = connect(autocommit=False)
    assert one(slow, "select two_tower.sync_video_embeddings()")["videos"] == len(first)
    db.execute("update public.videos set price = coalesce(price, 0) + 1 where id = any (%s)", (second,))
    db.execute(LIKE, (WORLD.no_decisions, UNDECIDED[0]))
    hasty = connect()
    hasty.execute("set lock_timeout = '200ms'")
    assert one(hasty, "select result from two_tower.refresh_batch(null, 5)")["videos"] == len(second)
    refresh(hasty)
    assert one(db, "select count(*) from public.user_embeddings where user_id = %s", WORLD.no_decisions) == 1
    slow.commit()
    refresh(db)
    assert_fresh(db)


def test_row_8_concurrent_refreshes_leave_room_in_the_lock_table(db: Connection, connect: Connect) -> None:
    db.execute("insert into two_tower.user_changes (user_id) select gen_random_uuid() from generate_series(1, 25000)")
    refreshers = [connect(autocommit=False) for _ in range(24)]
    batch = "select result from two_tower.refresh_batch(rpad(%s, 32, '0')::uuid)"
    took = [one(r, batch, f"{10 * n:02x}")["users"] for n, r in enumerate(refreshers)]
    assert sum(n > 0 for n in took) >= 8
    room = one(
        db,
        """select current_setting('max_locks_per_transaction')::int
        * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int) / 2""",
    )
    held = """select count(*) from pg_locks where locktype = 'advisory'
        and database = (select oid from pg_database where datname = current_database())"""
    assert sum(took) <= one(db, held) <= room + 3 * len(refreshers)
    db.execute(LIKE, (USER, UNDECIDED[0]))
    for refresher in refreshers:
        refresher.rollback()
    # A transaction that refreshes as much as it can leaves room for others.
    refreshers[0].execute("select two_tower.sync_user_embeddings()")
    assert one(db, held) <= room * 0.7
    assert one(refreshers[1], batch, "80")["users"] > 0
    for refresher in refreshers:
        refresher.rollback()


@pytest.mark.parametrize("failure", ["serialization_failure", "deadlock_detected"])
def test_row_1_conflicting_transactions_are_retried_and_skip_nobody(failure: str, db: Connection) -> None:
    db.execute(
        f"""create sequence public.tries;
        create function public.collide() returns trigger language plpgsql as $f$ begin
            if nextval('public.tries') <= 3 then raise exception 'no luck' using errcode = '{failure}'; end if;
            return new;
        end $f$;
        create trigger collide before insert or update on public.user_features
        for each row execute function public.collide()""".encode()
    )
    db.execute(LIKE, (USER, UNDECIDED[0]))
    refresh(db)
    assert one(db, "select count(*) from two_tower.job_log where error is not null") == 0
    assert_fresh(db)


# ------------------------------------------------------------------------- row 1: isolation levels

TRUNCATES = ("truncate public.user_video_decisions", "truncate public.video_tags", "truncate public.videos cascade")


@pytest.mark.sampled
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("truncate", TRUNCATES)
def test_row_1_truncate_logs_users_that_its_snapshot_cannot_see(
    truncate: str, level: str, db: Connection, connect: Connect
) -> None:
    older = connect(autocommit=False)
    older.isolation_level = LEVELS[level]
    older.execute("select 1 from public.tags limit 1")
    db.execute(LIKE, (WORLD.no_decisions, UNDECIDED[0]))
    refresh(db)
    older.execute(truncate.encode())
    older.commit()
    refresh(db)
    assert_fresh(db)


# ---------------------------------------------------------------------- row 4: writes without statement triggers

BYPASSED = (
    f"insert into public.user_video_decisions values ('{WORLD.no_decisions}', '{UNDECIDED[0]}', 'like')",
    f"delete from public.user_video_decisions where user_id = '{WORLD.users[6]}'",
    f"update public.user_video_decisions set decision_type = 'nope' where user_id = '{USER}'",
    f"update public.user_video_decisions set user_id = '{WORLD.no_decisions}' where user_id = '{WORLD.one_like}'",
    f"update public.videos set maker = 'Somebody else', price = 1 where id = '{WORLD.videos[5]}'",
    f"delete from public.video_tags where tag_id = '{WORLD.rare_tag}'",
    f"insert into public.video_tags values ('{WORLD.bare_video}', '{WORLD.rare_tag}')",
    "delete from public.video_performers",
    "truncate public.video_tags",
    "truncate public.user_video_decisions",
)
"""Applied in order, each changes something."""


def test_row_4_sessions_that_replicate_are_logged(db: Connection) -> None:
    before = state(db)
    for write in BYPASSED:
        with db.transaction():
            db.execute("set local session_replication_role = replica")
            db.execute(write.encode())
        refresh(db)
        found = state(db)
        assert found != before, write
        before = found
    assert_fresh(db)


def stored(dsn: str, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code of ``two-tower verify``, and its answer."""
    done = CliRunner().invoke(app, ["verify", "--dsn", dsn, "--json", *options])
    assert done.exit_code in (0, 1), done.output
    return done.exit_code, json.loads(done.stdout)


def unseen(db: Connection, write: str) -> None:
    """Runs ``write`` without our triggers; ``problems`` reports their absence meanwhile."""
    tables = ("user_video_decisions", "videos", "video_tags", "video_performers")
    for table in tables:
        db.execute(f"alter table public.{table} disable trigger user".encode())
    named = one(db, "select string_agg(detail, ' ') from two_tower.problems where what = 'triggers'")
    assert all(f"changes of {table} are not logged" in named for table in tables)
    db.execute(write.encode())
    for trigger in db.execute("select relation, enabled, name from two_tower.lacking_triggers()").fetchall():
        how = {"O": "", "A": "always", "R": "replica"}[trigger[1]]
        db.execute(f"alter table {trigger[0]} enable {how} trigger {trigger[2]}".encode())
    assert one(db, "select count(*) from two_tower.problems where what = 'triggers'") == 0


def differing(db: Connection) -> verify.Verified:
    """The differences that ``two-tower verify`` finds."""
    return verify.verify(db, lambda what, share: None)


def test_row_4_changes_that_bypassed_triggers_are_found_and_repaired(db: Connection) -> None:
    for write in BYPASSED:
        assert sum(differing(db).differing.values()) == 0
        unseen(db, write)
        refresh(db)
        found = differing(db)
        assert sum(found.differing.values()) > 0, write
        assert verify.repair(db, found) > 0
        refresh(db)
    assert_fresh(db)


def test_row_4_verify_repairs_changes_that_bypassed_triggers(db: Connection, dsn: str) -> None:
    assert stored(dsn) == (0, {
        "users": len({u for u, _, _, _ in WORLD.decisions}), "videos": len(WORLD.videos), "marked": 0,
        "differing": {"features": 0, "user_vectors": 0, "video_vectors": 0, "tastes": 0},
    })  # fmt: skip
    for write in (BYPASSED[2], BYPASSED[4]):
        unseen(db, write)
    refresh(db)
    code, answer = stored(dsn)
    assert code == 1
    assert sum(answer["differing"].values()) > 0
    code, answer = stored(dsn, "--repair")
    assert (code, answer["marked"] > 0) == (0, True)
    assert stored(dsn)[0] == 0, "what waits in the log is not missed"
    refresh(db)
    assert stored(dsn, "--sample", "1000")[0] == 0
    assert_fresh(db)


def test_row_4_the_daily_job_reports_changes_that_bypassed_triggers(db: Connection, dsn: str) -> None:
    """No user lacks a vector, so the check of each minute finds nothing; one of the sampled users differs."""
    assert one(db, "select two_tower.try_job('verify')::text").startswith("(t,")
    stale = "select detail, remedy from two_tower.problems where what = 'stale'"
    assert db.execute(stale).fetchone() is None
    db.execute("alter table public.user_video_decisions disable trigger user")
    db.execute("delete from public.user_video_decisions where user_id = %s and video_id = %s", (USER, LIKED))
    db.execute("alter table public.user_video_decisions enable trigger user")
    db.execute("alter table public.user_video_decisions enable replica trigger two_tower_row")
    db.execute("alter table public.user_video_decisions enable always trigger two_tower_truncate")
    assert one(db, "select count(*) from two_tower.problems") == 0
    assert one(db, "select two_tower.verify_sample()")["differing"] == {
        "features": 1, "user_vectors": 1, "video_vectors": 0, "tastes": 0,
    }  # fmt: skip
    (detail, remedy) = db.execute(stale).fetchone() or ("", "")
    assert "1 features, 1 and 0 vectors and 0 tastes are not what the rows say" in detail
    assert remedy == "two-tower verify --repair && two-tower refresh"
    # Neither a sample without it, nor a partial one, settles it.
    db.execute("select two_tower.verify_sample(0)")
    assert stored(dsn, "--sample", "1", "--repair")[1]["users"] == 1
    assert db.execute(stale).fetchone() is not None
    assert stored(dsn, "--repair")[0] == 0
    assert db.execute(stale).fetchone() is None
    refresh(db)
    assert_fresh(db)


HALVES = "array_fill(0.5, array[128])::extensions.halfvec"
ALTERED = (
    f"two_tower.user_embeddings set embedding = {HALVES} where user_id = '{USER}'",
    f"two_tower.video_embeddings set embedding = {HALVES} where video_id = '{LIKED}'",
    f"two_tower.user_embeddings set length = 2 * length where user_id = '{USER}'",
    f"two_tower.user_embeddings set length = null where user_id = '{USER}'",
    f"two_tower.video_embeddings set placed = not placed where video_id = '{LIKED}'",
    f"two_tower.video_tastes set liked = null where video_id = '{LIKED}'",
    f"two_tower.video_tastes set noped = liked where video_id = '{LIKED}'",
    f"public.user_features set like_count = like_count + 1 where user_id = '{USER}'",
    f"public.user_features set liked_video_ids = '{{}}' where user_id = '{USER}'",
)
"""For every table that a refresh writes, values that do not follow from the application's rows."""


@pytest.fixture
def tasted(db: Connection) -> Connection:
    """A database with a version whose users are sums: only such versions have tastes."""
    if not sums(db, "v1"):
        tiny_model(db, "v2", engine="sql")
    return db


@pytest.mark.soak
def test_row_4_wrong_stored_values_are_found_and_repaired(tasted: Connection) -> None:
    before = assert_fresh(tasted)
    for change in ALTERED:
        assert tasted.execute(f"update {change}".encode()).rowcount > 0
        found = differing(tasted)
        assert sum(found.differing.values()) > 0, change
        verify.repair(tasted, found)
        refresh(tasted)
        assert sum(differing(tasted).differing.values()) == 0, change
        assert state(tasted) == before, change


@pytest.mark.soak
def test_row_4_stored_rows_of_missing_videos_are_found_and_repaired(tasted: Connection, dsn: str) -> None:
    gone = UUID("ffffffff-ffff-ffff-ffff-ffffffffffff")
    for table, copied in (("video_embeddings", "embedding"), ("video_tastes", "liked, noped")):
        tasted.execute(
            f"""insert into two_tower.{table} (model_version, video_id, {copied})
            select model_version, %s, {copied} from two_tower.{table} limit 1""".encode(),
            (gone,),
        )
        assert stored(dsn)[0] == 1, table
        assert stored(dsn, "--repair")[1]["marked"] == 1, table
        refresh(tasted)
        assert stored(dsn)[0] == 0, table
        assert_fresh(tasted)


def test_row_4_users_with_likes_should_have_a_vector(db: Connection) -> None:
    """It is not decided by features, which only a refresh writes."""
    db.execute("alter table public.user_video_decisions disable trigger user")
    db.execute(LIKE, (WORLD.no_decisions, UNDECIDED[0]))
    row = db.execute("select users, missing_users, share < 1 from two_tower.coverage").fetchone()
    assert row == (48, 1, True)
    assert one(db, "select detail from two_tower.problems where what = 'coverage'").startswith(
        "model v1 (active) lacks the vectors of 1 users"
    )
    register(db, random_model(schema_of(db), seed=2), "v2")
    db.execute("call two_tower.backfill_model('v2', true)")
    assert one(db, "select count(*) from two_tower.user_embeddings where user_id = %s", WORLD.no_decisions) == 1
    db.execute("delete from two_tower.user_embeddings where model_version = 'v2' and user_id = %s", (USER,))
    with pytest.raises(psycopg.Error) as refused:
        db.execute("select two_tower.activate_model('v2')")
    assert refused.value.sqlstate == "TT003"


# ------------------------------------------------------------------------- row 5: a large log

SIZE = "select pg_relation_size('two_tower.user_change_log')"


def test_row_5_vacuum_truncates_the_log_without_delaying_likes(db: Connection, connect: Connect) -> None:
    """As autovacuum does; formerly a like waited 11 seconds for a purge."""
    db.execute("alter table two_tower.user_change_log set (autovacuum_enabled = off)")
    db.execute("insert into two_tower.user_change_log select gen_random_uuid() from generate_series(1, 300000)")
    db.execute("delete from two_tower.user_change_log")
    grown = one(db, SIZE)
    stop = threading.Event()
    slowest: list[float] = []

    def like(user: UUID) -> None:
        own = connect()
        while not stop.is_set():
            for video in UNDECIDED[:20]:
                started = time.monotonic()
                own.execute(
                    """insert into public.user_video_decisions values (%s, %s, 'like')
                    on conflict (user_id, video_id) do update set created_at = now()""",
                    (user, video),
                )
                slowest.append(time.monotonic() - started)

    with ThreadPoolExecutor(2) as pool:
        likers = [pool.submit(like, user) for user in (USER, OTHER)]
        try:
            for _ in range(20):
                db.execute("select two_tower.collect_user_changes()")
                db.execute("vacuum two_tower.user_change_log")
                db.execute("select two_tower.purge_logs()")
                if one(db, SIZE) < grown / 10:
                    break
        finally:
            stop.set()
        for liker in likers:
            liker.result()
    assert one(db, SIZE) < grown / 10
    assert max(slowest) < 1
    assert sorted(slowest)[len(slowest) * 99 // 100] < 0.2
    refresh(db)
    assert_fresh(db)


def test_row_5_a_snapshot_older_than_a_purge_sees_likes_and_log_rows(db: Connection, connect: Connect) -> None:
    db.execute("insert into two_tower.user_change_log select gen_random_uuid() from generate_series(1, 50000)")
    refresh(db)
    db.execute(LIKE, (USER, UNDECIDED[0]))
    dump = connect(autocommit=False)
    dump.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    assert one(dump, "select count(*) from public.user_video_decisions where video_id = %s", UNDECIDED[0]) > 0
    db.execute("select two_tower.purge_logs()")
    db.execute("vacuum two_tower.user_change_log")
    refresh(db)
    assert one(dump, "select count(*) from two_tower.pending_users where user_id = %s", USER) == 1


# ------------------------------------------------------------------------- row 9: imports during imports and likes

LISTED = list(dict.fromkeys([*WORLD.videos[:60], *UNDECIDED[:30]]))
NEW_URLS = [f"https://new.example/{n}" for n in range(60)]
FILES: dict[str, tuple[Callable[..., ImportSummary], ImportOptions, list[str]]] = {
    "catalogue": (
        import_catalog,
        ImportOptions(),
        ["product_url,title,tags", *(f"{url},New {n},new {n % 7}|tag {n % 3}" for n, url in enumerate(NEW_URLS))],
    ),
    "decisions": (
        import_decisions,
        ImportOptions(),
        ["user_id,video_id,decision", *(f"{user},{v},like" for user in (USER, OTHER) for v in LISTED)],
    ),
    "decisions of new users about new videos": (
        partial(import_decisions, create_users=True),
        ImportOptions(unknown="create"),
        ["user_id,product_url,decision", *(f"guest {n % 9},{url},nope" for n, url in enumerate(NEW_URLS))],
    ),
    "reviews": (
        import_reviews,
        ImportOptions(),
        ["product_url,reviewer_id,stars", *(f"https://videos.example/{n},guest {n % 9},4" for n in range(90))],
    ),
}
IMPORTED = """select array[
    (select count(*) from public.videos), (select count(*) from public.tags), (select count(*) from public.video_tags),
    (select count(*) from public.user_video_decisions), (select count(*) from auth.users),
    (select count(*) from two_tower.reviews)]"""


@pytest.mark.sampled(1)
@pytest.mark.parametrize("level", ["read committed", "repeatable read"])
@pytest.mark.parametrize("chunk", [None, 25])
@pytest.mark.parametrize("name", FILES)
def test_row_9_two_concurrent_imports_of_one_file_succeed(
    name: str, chunk: int | None, level: str, db: Connection, connect: Connect, tmp_path: Path
) -> None:
    import_file, options, lines = FILES[name]
    options = replace(options, chunk=chunk, rejects=tmp_path / "rejects.csv")
    path = tmp_path / "file.csv"
    path.write_text("\n".join(lines))
    both = threading.Barrier(2)

    def meet(read: int, total: int | None, step: str) -> None:
        """Waits until both have staged their rows, unless one blocks the other."""
        if step == "merging":
            with suppress(threading.BrokenBarrierError):
                both.wait(0.5)

    def work(connection: Connection) -> ImportSummary:
        connection.execute(f"set default_transaction_isolation = '{level}'".encode())
        return import_file(connection, path, options, meet)

    with ThreadPoolExecutor(2) as pool:
        done = [job.result(timeout=60) for job in [pool.submit(work, connect()) for _ in range(2)]]
    assert [summary.rejected for summary in done] == [0, 0]
    found = one(db, IMPORTED)
    alone = import_file(db, path, replace(options, chunk=None))
    assert (alone.inserted, alone.updated, alone.rejected) == (0, 0, 0)
    assert one(db, IMPORTED) == found
    assert sum(summary.inserted for summary in done) + sum(summary.updated for summary in done) == len(
        set(lines[1:]) if name != "decisions" else [line for line in lines[1:] if not already(line)]
    )
    if chunk:
        # Neither repeated the other's work.
        assert sum(summary.resumed for summary in done) >= len(lines) - 1 - chunk
        assert one(db, "select count(*) from two_tower.job_log where job like 'import %%' and finished_at is null") == 0
    refresh(db)
    assert_fresh(db)


def already(line: str) -> bool:
    """Whether the world has this decision."""
    user, video, decision = line.split(",")
    return UUID(video) in WORLD.of(UUID(user), decision)


NEW_VIDEO = "insert into public.videos (id, product_url, title) values (gen_random_uuid(), %s, '')"
APPLICATION: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "likes what the file likes": ("decisions", LIKE, (USER, UNDECIDED[0])),
    "skips it": ("decisions", LIKE.replace("'like'", "'skip'"), (USER, UNDECIDED[0])),
    "changes a decision": (
        "decisions",
        "update public.user_video_decisions set decision_type = 'nope' where user_id = %s",
        (OTHER,),
    ),
    "takes decisions back": ("decisions", "delete from public.user_video_decisions where user_id = %s", (OTHER,)),
    "adds a tag": ("catalogue", "insert into public.tags (id, name) values (gen_random_uuid(), %s)", ("new 3",)),
    "adds a video": ("catalogue", NEW_VIDEO, (NEW_URLS[5],)),
    "adds a video that is decided on": ("decisions of new users about new videos", NEW_VIDEO, (NEW_URLS[5],)),
    "has a new user": (
        "decisions of new users about new videos",
        "insert into auth.users (id) values (%s)",
        (user_uuid("guest 4"),),
    ),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("chunk", [None, 25])
@pytest.mark.parametrize("what", APPLICATION)
def test_row_9_an_import_waits_for_an_application_writing_the_same_rows(
    what: str, chunk: int | None, db: Connection, connect: Connect, tmp_path: Path
) -> None:
    name, statement, values = APPLICATION[what]
    import_file, options, lines = FILES[name]
    options = replace(options, chunk=chunk, rejects=tmp_path / "rejects.csv")
    path = tmp_path / "file.csv"
    path.write_text("\n".join(lines))
    application, importer = connect(autocommit=False), connect()
    application.execute(statement.encode(), values)
    with meanwhile(lambda: import_file(importer, path, options)) as importing:
        until(db, f"select wait_event_type = 'Lock' from pg_stat_activity where pid = {importer.info.backend_pid}")
        application.commit()
        assert importing.result(timeout=60).rejected == 0
    again = import_file(db, path, replace(options, chunk=None))
    # Rows of the application that do not contradict the file stay.
    of_application = sum(already(line) for line in lines[1:] if line.startswith(str(OTHER)) and values == (OTHER,))
    assert len(lines) - 1 - of_application <= again.unchanged <= len(lines) - 1
    assert again.rejected == 0
    refresh(db)
    assert_fresh(db)


def test_row_9_conflicting_imports_and_applications_both_succeed(
    db: Connection, connect: Connect, tmp_path: Path
) -> None:
    import_file, options, _ = FILES["decisions"]
    path = tmp_path / "file.csv"
    path.write_text(f"user_id,video_id,decision\n{USER},{UNDECIDED[0]},like\n{OTHER},{UNDECIDED[1]},like\n")
    places = [(USER, UNDECIDED[0]), (OTHER, UNDECIDED[1])]
    places.sort()
    skip = LIKE.replace("'like'", "'skip'") + " on conflict (user_id, video_id) do update set decision_type = 'nope'"
    application, importer = connect(autocommit=False), connect()
    # The import is the one that finds the deadlock, however late the application waits.
    application.execute("set deadlock_timeout = '1min'")
    importer.execute("set deadlock_timeout = '3s'")
    application.execute(skip.encode(), places[1])
    with meanwhile(lambda: import_file(importer, path, options)) as importing:
        until(db, f"select wait_event_type = 'Lock' from pg_stat_activity where pid = {importer.info.backend_pid}")
        application.execute(skip.encode(), places[0])
        application.commit()
        assert importing.result(timeout=60).rejected == 0
    for place in places:
        query = "select decision_type from public.user_video_decisions where user_id = %s and video_id = %s"
        assert one(db, query, *place) == "like"
    refresh(db)
    assert_fresh(db)


# ---------------------------------------------------------------- row 10: connections that live across a release

RELEASE: dict[str, list[tuple[str, str]]] = {
    # Users' vectors point the other way, by a routine of another signature.
    "30_inference/user_vector.sql": [
        (
            "create or replace function two_tower.user_vector(p_taste extensions.vector)",
            "drop function if exists two_tower.user_vector(extensions.vector);\n"
            "create or replace function two_tower.user_vector(p_taste extensions.vector, p_sign real default -1)",
        ),
        ("then extensions.l2_normalize(p_taste)", "then two_tower.times(extensions.l2_normalize(p_taste), p_sign)"),
        ("comment on function two_tower.user_vector(extensions.vector)", "comment on function two_tower.user_vector"),
    ],
    "35_onnxruntime/infer_onnxruntime.sql": [
        # So do those by onnxruntime, and the backend caches sessions in another form.
        (
            "{feed.name: dense if full_batches else dense[:rows]})[0][:rows]",
            "{feed.name: dense[:rows]})[0][:rows] * -1",
        ),
        ("entry = (session, not same_in_any_batch(numpy, session))", "entry = (True, session)"),
        ("session, full_batches = session_for", "full_batches, session = session_for"),
    ],
    # The step that runs between commits takes one argument more.
    "50_refresh/refresh_step.sql": [
        (
            "create or replace function two_tower.refresh_step(\n    inout state jsonb,",
            "drop function if exists two_tower.refresh_step(jsonb);\n"
            "create or replace function two_tower.refresh_step(\n    inout state jsonb, in p_more int default 1,",
        ),
        ("comment on function two_tower.refresh_step(jsonb)", "comment on function two_tower.refresh_step"),
    ],
    "12_backfill/backfill_step.sql": [
        (
            "create or replace function two_tower.backfill_step(\n    inout state jsonb,",
            "drop function if exists two_tower.backfill_step(jsonb);\n"
            "create or replace function two_tower.backfill_step(\n    inout state jsonb, in p_more int default 1,",
        ),
        ("comment on function two_tower.backfill_step(jsonb)", "comment on function two_tower.backfill_step"),
    ],
    "90_privileges.sql": [
        ("refresh_step(jsonb)", "refresh_step(jsonb, int)"),
        ("backfill_step(jsonb)", "backfill_step(jsonb, int)"),
        ("user_vector(extensions.vector)", "user_vector(extensions.vector, real)"),
    ],
}
"""Another release: file of ``sql/``, and its changes."""
WAY_BACK: dict[str, list[tuple[str, str]]] = {
    f"{path}.sql": [("create or replace function", f"drop function if exists {signature};\ncreate or replace function")]
    for path, signature in (
        ("30_inference/user_vector", "two_tower.user_vector(extensions.vector, real)"),
        ("50_refresh/refresh_step", "two_tower.refresh_step(jsonb, int)"),
        ("12_backfill/backfill_step", "two_tower.backfill_step(jsonb, int)"),
    )
}
"""The release of this tree, which removes the additions of the other."""


def release(dsn: str, differs: dict[str, list[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrates to a release that differs from this tree."""

    def expand(path: Path, read: Callable[[Path], str] = migrate.expand) -> str:
        text = read(path)
        for old, new in differs.get(str(path.relative_to(migrate.LOGIC)), []):
            assert old in text or path.name == "90_privileges.sql", (path, old)
            text = text.replace(old, new, 1)
        return text

    with monkeypatch.context() as patch:
        patch.setattr(migrate, "expand", expand)
        migrate.migrate(dsn)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("engine", ["sql", "onnxruntime"])
def test_row_10_open_connections_run_no_old_code_after_a_release(
    engine: str, world_of: Callable[[str], str], database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = database(template=world_of(engine))
    with psycopg.connect(dsn, autocommit=True) as live, psycopg.connect(dsn, autocommit=True) as db:
        live.prepare_threshold = 0

        def everything() -> State:
            """Uses everything that a backend may have cached: plans, bodies, models."""
            with live.transaction():
                as_user(live, USER)
                live.execute("select public.embed_user(true)")
                live.execute("select count(*) from public.recommend_videos(5)")
            live.execute("call two_tower.rebuild()")
            return state(live)

        for _ in range(6):  # from the sixth run on, a plan may be generic
            before = everything()
        register(db, random_model(schema_of(db), seed=2), "v2", engine=engine)
        db.execute("insert into two_tower.user_changes (user_id) select id from auth.users")
        refreshing = live.execute("select state from two_tower.begin_refresh(p_max_changes => 20)").fetchone()
        assert refreshing is not None
        release(dsn, RELEASE, monkeypatch)
        # Runs in progress continue, and new ones use the new release.
        run, finished = refreshing[0], False
        while not finished:
            step = "select state, finished, failure from two_tower.refresh_step(%s)"
            row = live.execute(step, (Jsonb(run),)).fetchone()
            assert row is not None
            run, finished, failure = row
            assert failure is None
        live.execute("call two_tower.refresh()")
        live.execute("call two_tower.backfill_model('v2', true)")
        after = everything()
        assert {key for key in before if after[key] == before[key]} == {
            key for key in before if not key.startswith("user ") and not (engine != "sql" and key.startswith("video "))
        }
        with psycopg.connect(dsn, autocommit=True) as new:
            new.execute("call two_tower.rebuild()")
            assert state(new) == after
        release(dsn, WAY_BACK, monkeypatch)
        again = everything()
        assert {k: v for k, v in again.items() if not k.endswith(" v2")} == before


def test_row_10_a_release_in_the_middle_of_runs_loses_nothing(
    db: Connection, dsn: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replacing a running routine fails at most that call of a refresh or of embed_user(); likes never fail."""
    register(db, random_model(schema_of(db), seed=2), "v2")
    stop = threading.Event()

    def again(work: Callable[[Connection], object]) -> int:
        own, times = connect(), 0
        while not stop.is_set():
            work(own)
            times += 1
        return times

    def like(own: Connection) -> None:
        for video in UNDECIDED[:3]:
            own.execute(
                LIKE.encode() + b" on conflict (user_id, video_id) do update set created_at = now()", (USER, video)
            )

    def embed(own: Connection) -> None:
        with suppress(errors.InternalError), own.transaction():
            as_user(own, OTHER)
            own.execute("select public.embed_user(true)")

    def drain(own: Connection) -> None:
        own.execute("insert into two_tower.user_changes (user_id) select id from auth.users")
        with suppress(errors.InternalError):
            own.execute("call two_tower.refresh()")

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(again, work) for work in (like, embed, drain)]
        try:
            db.execute("call two_tower.backfill_model('v2', true)")
            for differs in (RELEASE, RELEASE, WAY_BACK):
                release(dsn, differs, monkeypatch)
        finally:
            stop.set()
        assert all(future.result() > 0 for future in running)
    refresh(db)
    db.execute("call two_tower.rebuild()")  # a vector by the other release counts as stale
    assert_fresh(db)
