"""Whatever writes, and however its transactions lie: a refresh equals a rebuild (I3), and nobody waits (I4)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import errors
from typer.testing import CliRunner

from conftest import Connect, Connection
from test_refresh import assert_fresh
from two_tower.cli.main import app
from world_fixtures import column, make_world, one, random_model, refresh, register, schema_of, state, tiny_model

pytestmark = pytest.mark.world

WORLD = make_world()
USER, OTHER = WORLD.usual, WORLD.many
UNDECIDED = [v for v in WORLD.videos if v not in WORLD.decided(USER) | WORLD.decided(OTHER)]
LIKE = "insert into public.user_video_decisions values (%s, %s, 'like')"
LEVELS = {
    "read committed": psycopg.IsolationLevel.READ_COMMITTED,
    "repeatable read": psycopg.IsolationLevel.REPEATABLE_READ,
    "serializable": psycopg.IsolationLevel.SERIALIZABLE,
}


@contextmanager
def meanwhile(work: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Runs ``work`` in another thread; at the end of the block it has to have ended, and to have raised nothing."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        yield future
        future.result(timeout=60)


def as_user(connection: Connection, user: UUID) -> None:
    """From now on and until its transaction ends, ``connection`` speaks for ``user``."""
    connection.execute("select set_config('request.jwt.claims', %s, true)", (json.dumps({"sub": str(user)}),))


def until(db: Connection, condition: str) -> None:
    """Waits until a query says true."""
    deadline = time.monotonic() + 30
    while not one(db, condition):
        assert time.monotonic() < deadline, condition
        time.sleep(0.01)


# ------------------------------------------------------------------ rows 2 and 3: versions that come and go meanwhile

WRITERS = {
    "embed_user": "select public.embed_user()",
    "sync_user_embeddings": "select two_tower.sync_user_embeddings('100 years')",
    "sync_video_embeddings": "select two_tower.sync_video_embeddings()",
    "refresh_batch": "select two_tower.collect_user_changes(), two_tower.refresh_batch()",
    "rebuild_batch": "select two_tower.rebuild_batch('user')",
    "backfill_batch": "select two_tower.backfill_batch('v1', 'change')",
}
"""Everything that writes vectors within its caller's transaction."""


@pytest.mark.sampled
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
            # Neither a like, nor a list, nor a user who embeds himself feels that an attach is waiting.
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


@pytest.mark.sampled
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("writer", WRITERS)
def test_row_3_a_snapshot_older_than_a_retirement_writes_to_what_is_there(
    writer: str, level: str, db: Connection, connect: Connect
) -> None:
    tiny_model(db, "v2", seed=2)
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


def test_row_3_users_embed_themselves_beside_retirements(db: Connection, connect: Connect) -> None:
    """Whichever comes first; before, the client got 23514, that there is no partition."""
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
            for number in range(2, 6):
                register(db, random_model(schema_of(db), seed=number), f"v{number}")
                db.execute("call two_tower.backfill_model(%s, true)", (f"v{number}",))
                db.execute("select two_tower.retire_model(%s)", (f"v{number}",))
        finally:
            stop.set()
        for client in clients:
            client.result()
    assert len(calls) > 20
    assert_fresh(db)


def test_an_attach_and_a_retirement_give_up_before_a_transaction_that_does_not_end(
    db: Connection, connect: Connect
) -> None:
    tiny_model(db, "v2", seed=2)
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


# ------------------------------------------------------------------------- rows 6 to 8: what others hold meanwhile

HOLDS = {
    "a deletion": "delete from auth.users where id = %s",
    "the user's row": "select 1 from auth.users where id = %s for update",
    "the user's row, as a key": "select 1 from auth.users where id = %s for key share",
    "the user's decisions": "select 1 from public.user_video_decisions where user_id = %s for update",
    "a changed decision": "update public.user_video_decisions set decision_type = 'nope' where user_id = %s",
    "the videos": "select 1 from public.videos, (select %s::uuid) as nobody for update of videos",
}
"""What an application may do and then take its time."""


@pytest.mark.sampled
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
    # The first features of a user refer to the user's row, and a deletion has the features' row.
    busy = [user] if hold in ("a deletion", "the user's row") and (hold == "a deletion" or not known) else []
    assert column(db, "select user_id from two_tower.pending_users") == busy
    with hasty.transaction():
        as_user(hasty, OTHER)
        hasty.execute("select public.embed_user()")
    application.commit()
    refresh(hasty)
    assert_fresh(db)


def test_row_6_an_application_deletes_users_in_any_order_while_they_are_refreshed(
    db: Connection, connect: Connect
) -> None:
    """It waits for a batch at most, and no batch waits for it for longer than a moment, so nobody is the victim of a
    deadlock."""
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


def test_row_8_however_many_refreshes_run_a_like_finds_room_in_the_lock_table(db: Connection, connect: Connect) -> None:
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
    # One transaction that refreshes all it can leaves room for the others.
    refreshers[0].execute("select two_tower.sync_user_embeddings()")
    assert one(db, held) <= room * 0.7
    assert one(refreshers[1], batch, "80")["users"] > 0
    for refresher in refreshers:
        refresher.rollback()


@pytest.mark.parametrize("failure", ["serialization_failure", "deadlock_detected"])
def test_row_1_two_in_each_others_way_are_tried_again_and_nobody_is_set_aside(failure: str, db: Connection) -> None:
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


# ------------------------------------------------------------------------- row 1: whatever the isolation

TRUNCATES = ("truncate public.user_video_decisions", "truncate public.video_tags", "truncate public.videos cascade")


@pytest.mark.sampled
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("truncate", TRUNCATES)
def test_row_1_a_truncate_with_an_old_snapshot_logs_those_it_cannot_see(
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


# ---------------------------------------------------------------------- row 4: writes that fire no statement's trigger

BYPASSED = (
    f"insert into public.user_video_decisions values ('{WORLD.no_decisions}', '{UNDECIDED[0]}', 'like')",
    f"delete from public.user_video_decisions where user_id = '{WORLD.one_like}'",
    f"update public.user_video_decisions set decision_type = 'nope' where user_id = '{USER}'",
    f"update public.user_video_decisions set user_id = '{WORLD.no_decisions}' where user_id = '{WORLD.one_like}'",
    f"update public.videos set maker = 'Somebody else', price = 1 where id = '{WORLD.videos[5]}'",
    f"delete from public.video_tags where tag_id = '{WORLD.rare_tag}'",
    f"insert into public.video_tags values ('{WORLD.bare_video}', '{WORLD.rare_tag}')",
    "delete from public.video_performers",
    "truncate public.video_tags",
    "truncate public.user_video_decisions",
)


@pytest.mark.parametrize("write", BYPASSED)
def test_row_4_sessions_that_replicate_are_logged(write: str, db: Connection) -> None:
    with db.transaction():
        db.execute("set local session_replication_role = replica")
        db.execute(write.encode())
    before = state(db)
    refresh(db)
    assert assert_fresh(db) != before


def stored(dsn: str, *options: str) -> tuple[int, dict[str, Any]]:
    """What ``two-tower verify`` says, and its exit code."""
    done = CliRunner().invoke(app, ["verify", "--dsn", dsn, "--json", *options])
    assert done.exit_code in (0, 1), done.output
    return done.exit_code, json.loads(done.stdout)


@pytest.mark.parametrize("write", BYPASSED)
def test_row_4_what_no_trigger_saw_is_found_and_repaired(write: str, db: Connection, dsn: str) -> None:
    tables = ("user_video_decisions", "videos", "video_tags", "video_performers")
    assert stored(dsn) == (0, {
        "users": len({u for u, _, _, _ in WORLD.decisions}), "videos": 300, "marked": 0,
        "differing": {"features": 0, "user_vectors": 0, "video_vectors": 0, "tastes": 0},
    })  # fmt: skip
    for table in tables:
        db.execute(f"alter table public.{table} disable trigger user".encode())
    named = one(db, "select string_agg(detail, ' ') from two_tower.problems where what = 'triggers'")
    assert all(f"changes of {table} are not logged" in named for table in tables)
    db.execute(write.encode())
    for trigger in db.execute("select relation, enabled, name from two_tower.lacking_triggers()").fetchall():
        how = {"O": "", "A": "always", "R": "replica"}[trigger[1]]
        db.execute(f"alter table {trigger[0]} enable {how} trigger {trigger[2]}".encode())
    assert one(db, "select count(*) from two_tower.problems where what = 'triggers'") == 0
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


def test_row_4_who_should_have_a_vector_is_who_has_likes(db: Connection) -> None:
    """Not who has features, which only a refresh writes."""
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


# ------------------------------------------------------------------------- row 5: a log that has grown

SIZE = "select pg_relation_size('two_tower.user_change_log')"


def test_row_5_the_space_of_a_log_is_given_back_and_no_like_feels_it(db: Connection, connect: Connect) -> None:
    """By what autovacuum does; a like waited 11 seconds for a purge."""
    db.execute("alter table two_tower.user_change_log set (autovacuum_enabled = off)")
    db.execute("insert into two_tower.user_change_log select gen_random_uuid() from generate_series(1, 1000000)")
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


def test_row_5_a_snapshot_from_before_a_purge_has_the_likes_with_their_log_rows(
    db: Connection, connect: Connect
) -> None:
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
