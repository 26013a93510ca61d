"""Jobs: scheduling and unscheduling, their cost when idle, and real runs in the database of pg_cron."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import errors

from conftest import Connect, Connection, locked, new_cluster, remove_server
from two_tower.errors import UserError
from two_tower.lifecycle import registry
from two_tower.server.contract import READ
from two_tower.server.migrate import migrate
from world_fixtures import EPOCH, NOBODY, column, copy_rows, load, make_world, one, refresh, tiny_model

pytestmark = pytest.mark.world

WORLD = make_world()
JOBS = {
    "two_tower_refresh": "* * * * *",
    "two_tower_sync_users": "7 * * * *",
    "two_tower_sync_videos": "17 3 * * *",
    "two_tower_popularity": "37 3 * * *",
    "two_tower_verify": "47 3 * * *",
    "two_tower_purge": "57 3 * * *",
}


# -------------------------------------------------------------------------------------------- idle refreshes and purges


def test_i7_an_idle_refresh_reads_little_writes_nothing_and_logs_nothing(db: Connection) -> None:
    db.execute("select two_tower.update_popularity(), two_tower.purge_logs()")
    runs = one(db, "select count(*) from two_tower.job_runs")
    db.execute("call two_tower.refresh()")
    before = one(db, "select pg_current_wal_insert_lsn()::text")
    # Other tests may write to the same cluster meanwhile, hence several tries.
    written = [1]
    for _ in range(500):
        if min(written) == 0:
            break
        before = one(db, "select pg_current_wal_insert_lsn()::text")
        db.execute("call two_tower.refresh()")
        written.append(one(db, "select pg_current_wal_insert_lsn() - %s::pg_lsn", before))
    assert min(written) == 0
    assert one(db, "select count(*) from two_tower.job_runs") == runs
    started = time.perf_counter()
    for _ in range(100):
        db.execute("call two_tower.refresh()")
    assert (time.perf_counter() - started) / 100 < 0.1


def test_i7_an_idle_refresh_after_many_changes_is_as_cheap(db: Connection) -> None:
    db.execute("select two_tower.update_popularity(), two_tower.purge_logs()")
    logs = ("user_change_log", "user_changes")
    db.execute("alter table two_tower.user_change_log set (autovacuum_enabled = off)")
    for log in logs:
        flood = f"insert into two_tower.{log} (user_id) select gen_random_uuid() from generate_series(1, 50000)"
        db.execute(flood.encode())
        db.execute(f"delete from two_tower.{log}".encode())
        db.execute(f"vacuum (analyze, truncate off) two_tower.{log}".encode())
    db.execute("call two_tower.refresh()")

    def touched(*tables: str) -> float:
        """Pages of these tables that an idle refresh reads."""
        query = """select sum(heap_blks_read + heap_blks_hit + coalesce(idx_blks_read + idx_blks_hit, 0))::int
            from pg_statio_user_tables where schemaname = 'two_tower' and relname = any (%s)"""
        db.execute("select pg_stat_force_next_flush()")
        before = one(db, query, list(tables))
        for _ in range(10):
            db.execute("call two_tower.refresh()")
        db.execute("select pg_stat_force_next_flush()")
        return (one(db, query, list(tables)) - before) / 10

    assert touched("user_changes", "video_changes") < 50
    # The log has no index. Its pages are read once, until a vacuum truncates them.
    assert touched("user_change_log") <= one(db, "select pg_relation_size('two_tower.user_change_log') / 8192") < 400
    db.execute("vacuum two_tower.user_change_log")
    assert touched("user_change_log", "user_changes", "video_changes") < 50


BATCHES = (
    "rebuild_batch('user', %s, 10)",
    "rebuild_batch('video', %s, 10)",
    "verify_batch('user', %s, 10)",
    "verify_batch('video', %s, 10)",
    "backfill_batch('v1', 'user', %s, 10)",
)


def test_i7_a_batch_reads_neither_what_came_before_it_nor_all_that_is_left(db: Connection) -> None:
    with db.transaction():
        db.execute("set local session_replication_role = replica")
        db.execute(
            "create temp table ids as select lpad(to_hex(n), 32, '0')::uuid as id from generate_series(1, 10000) n"
        )
        db.execute("insert into auth.users (id) select id from ids")
        db.execute("insert into public.videos (id, product_url, title) select id, id, id from ids")
        db.execute(
            "insert into public.user_video_decisions (user_id, video_id, decision_type) select id, id, 'like' from ids"
        )
    db.execute("vacuum analyze public.user_video_decisions, public.videos")

    def rows_read() -> int:
        db.execute("select pg_stat_force_next_flush()")
        return one(
            db,
            """select (sum(t.seq_tup_read) + sum(i.idx_tup_read))::int from pg_stat_user_tables t
            cross join lateral (
                select sum(i.idx_tup_read) as idx_tup_read from pg_stat_user_indexes i where i.relid = t.relid
            ) as i
            where t.relname in ('user_video_decisions', 'videos')""",
        )

    read = {}
    for batch in BATCHES:
        for at in [None, UUID(int=2**128 - 1)] * 4:  # from the sixth on, a plan may be one for any value
            before = rows_read()
            db.execute(f"select two_tower.{batch}".encode(), (at,))
            read[f"{batch} after {at}"] = rows_read() - before
    assert max(read.values()) < 3000, read


def test_purge_logs_keeps_what_is_recent_and_the_last_run_of_each_job(db: Connection) -> None:
    db.execute("delete from two_tower.job_runs")
    db.execute(
        """insert into two_tower.job_runs (job, started_at, finished_at)
        select job, now() - age, now() - age from (values
            ('refresh', interval '9 days'), ('refresh', interval '8 days'), ('refresh', interval '1 hour'),
            ('update_popularity', interval '30 days'), ('update_popularity', interval '20 days')
        ) as r (job, age)"""
    )
    assert one(db, "select two_tower.purge_logs()") == {"job_runs": 3, "cron_runs": 0, "impression_days": 0}
    kept = """select job || ' ' || extract(day from now() - started_at) from two_tower.job_runs
        where job <> 'purge_logs' order by 1"""
    assert column(db, kept) == ["refresh 0", "update_popularity 20"]
    assert one(db, "select two_tower.purge_logs('0 seconds')") == {"job_runs": 0, "cron_runs": 0, "impression_days": 0}


DUE = ("sync_user_embeddings", "sync_video_embeddings", "update_popularity", "verify", "purge_logs")


def pretend(db: Connection, job: str, age: str, error: str | None = None) -> None:
    """Inserts a run of a job that began so long ago."""
    db.execute("delete from two_tower.job_runs where job = %s", (job,))
    db.execute(
        """insert into two_tower.job_runs (job, started_at, finished_at, error)
        values (%s, now() - %s::interval, now() - %s::interval, %s)""",
        (job, age, age, error),
    )


@pytest.mark.parametrize("job", DUE)
def test_a_job_is_due_when_its_period_is_over_and_an_hour_after_it_failed(job: str, db: Connection) -> None:
    due = "select two_tower.job_due(%s)"
    period = 1 if job == "sync_user_embeddings" else 24
    db.execute("delete from two_tower.job_runs")
    assert one(db, due, job)
    for hours, expected in ((0, False), (period - 0.1, False), (period + 0.1, True), (100 * period, True)):
        pretend(db, job, f"{hours} hours")
        assert one(db, due, job) is expected, hours
        for failed, allowed in ((0, False), (0.9, False), (1.1, expected)):
            db.execute(
                "insert into two_tower.job_runs (job, error, started_at) values (%s, 'no', now() - %s::interval)",
                (job, f"{failed} hours"),
            )
            assert one(db, due, job) is allowed, (hours, failed)
            db.execute("delete from two_tower.job_runs where error is not null")


@pytest.mark.parametrize("job", DUE)
def test_two_sessions_that_find_a_job_due_run_it_once(job: str, db: Connection, connect: Connect) -> None:
    db.execute("delete from two_tower.job_runs")
    first = connect(autocommit=False)
    attempt = "select ran, error from two_tower.try_job(%s, true)"
    runs = "select count(*) from two_tower.job_runs where job = %s"
    assert first.execute(attempt, (job,)).fetchone() == (True, None)
    assert db.execute(attempt, (job,)).fetchone() == (False, None)
    first.commit()
    assert db.execute(attempt, (job,)).fetchone() == (False, None)
    assert one(db, runs, job) == 1
    with ThreadPoolExecutor(4) as pool:
        db.execute("delete from two_tower.job_runs")
        ran = [pool.submit(one, connect(), "select ran from two_tower.try_job(%s, true)", job) for _ in range(8)]
        assert sum(each.result() for each in ran) == one(db, runs, job) == 1


@pytest.mark.parametrize("job", ["refresh", "", "nothing", "select 1"])
def test_an_unknown_job_is_refused(job: str, db: Connection) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="there is no job") as caught:
        db.execute("select two_tower.try_job(%s)", (job,))
    assert "job_definitions" in (caught.value.diag.message_hint or "")


@pytest.mark.parametrize("how", ["procedure", "command line"])
def test_without_scheduled_jobs_a_refresh_purges_once_a_day(how: str, db: Connection) -> None:
    def drain() -> None:
        if how == "procedure":
            refresh(db)
        else:
            registry.refresh(db, lambda what, share: None)

    old = "select count(*) from two_tower.job_runs where job = 'refresh' and finished_at < now() - interval '8 days'"
    db.execute("delete from two_tower.job_runs")
    pretend(db, "purge_logs", "23 hours")
    db.execute(
        """insert into two_tower.job_runs (job, started_at, finished_at)
        select 'refresh', now() - age, now() - age from (values (interval '9 days'), ('10 days'), ('1 hour')) a (age)"""
    )
    drain()
    assert one(db, old) == 2
    pretend(db, "purge_logs", "25 hours")
    drain()
    assert one(db, old) == 0
    assert one(db, "select count(*) from two_tower.job_runs where job = 'purge_logs'") == 2


@pytest.mark.parametrize("how", ["procedure", "command line"])
@pytest.mark.parametrize("job", ["update_popularity", "purge_logs"])
def test_housekeeping_that_fails_is_logged_and_fails_no_refresh(job: str, how: str, db: Connection) -> None:
    db.execute("delete from two_tower.job_runs")
    db.execute(
        f"""create function public.refuse() returns trigger language plpgsql as $$ begin raise 'broken {job}'; end $$;
        create trigger refuse before insert on two_tower.job_runs for each row
            when (new.job = '{job}' and new.error is null) execute function public.refuse()""".encode()
    )
    db.execute("delete from user_video_decisions where user_id = %s", (WORLD.one_like,))
    for _ in range(2):
        if how == "procedure":
            refresh(db)
        else:
            done = registry.refresh(db, lambda what, share: None)
            assert done.jobs.get(job) in ({"error": f"broken {job}"}, None)
    assert one(db, "select count(*) from two_tower.pending_users") == 0
    assert one(db, "select count(*) from user_embeddings where user_id = %s", WORLD.one_like) == 0
    failed = "select error from two_tower.job_log where error is not null"
    assert column(db, failed) == [f"broken {job}"], "once: it is tried again in an hour"


@pytest.mark.parametrize("how", ["procedure", "command line"])
def test_a_refresh_that_fails_is_followed_by_housekeeping_and_says_so(how: str, db: Connection) -> None:
    db.execute("delete from two_tower.job_runs")
    liked = next(iter(WORLD.of(WORLD.usual, "like")))
    db.execute("delete from user_video_decisions where user_id = %s and video_id = %s", (WORLD.usual, liked))
    db.execute("alter table public.videos rename column maker to renamed")
    drain = refresh if how == "procedure" else lambda db: registry.refresh(db, lambda what, share: None)
    with pytest.raises((psycopg.Error, UserError), match="maker"):
        drain(db)
    assert one(db, "select count(*) from two_tower.pending_users") == 1
    assert column(db, "select job from two_tower.job_log where error is not null") == ["refresh"]
    assert one(db, "select count(*) from two_tower.job_log where job = 'purge_logs' and error is null") == 1


def test_without_pg_cron_scheduling_says_what_to_do(db: Connection) -> None:
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="pg_cron is not installed") as caught:
        db.execute("select * from two_tower.schedule_jobs()")
    assert "shared_preload_libraries" in (caught.value.diag.message_hint or "")
    assert one(db, "select two_tower.unschedule_jobs()") == 0


# ------------------------------------------------------------------------------------------------ bulk loads


def test_i3_a_bulk_load_marks_each_user_once_and_all_are_refreshed(db: Connection) -> None:
    users = [(f"00000000-0000-0000-0001-{n:012}", EPOCH) for n in range(2_000)]
    copy_rows(db, "auth.users (id, created_at)", users)
    rows = [(user, video, "like", EPOCH) for user, _ in users for video in WORLD.videos[:20]]
    copy_rows(db, "user_video_decisions (user_id, video_id, decision_type, created_at)", rows)
    assert one(db, "select count(*) from two_tower.user_change_log") <= len(users) + 100
    assert one(db, "select two_tower.collect_user_changes()") == len(users)
    db.execute("call two_tower.refresh()")
    assert (
        one(db, "select count(*) from user_embeddings where user_id < '00000000-0000-0000-0002-000000000000'") == 2_000
    )
    vectors = "select count(distinct embedding::text) from user_embeddings where user_id = any (%s::uuid[])"
    assert one(db, vectors, [user for user, _ in users]) == 1


# ------------------------------------------------------------------------------------------------ pg_cron


@pytest.fixture(scope="module")
def cron() -> Iterator[Connection]:
    """The database of pg_cron in a cluster of this module's own, with the world and a model."""
    server = new_cluster("two-tower-cron-")
    if "pg_cron" not in server.installation.extensions:
        pytest.fail("pg_cron is not installed")
    with locked("cron"):
        server.start()
    migrate(server.dsn)
    with psycopg.connect(server.dsn, autocommit=True) as db:
        load(db, WORLD)
        tiny_model(db)
        yield db
    remove_server(server)


def scheduled(db: Connection) -> dict[str, Any]:
    query = "select jobname, schedule from cron.job where starts_with(jobname, 'two_tower_') and active"
    return dict(db.execute(query).fetchall())


@pytest.mark.soak
@pytest.mark.xdist_group("cron")
def test_jobs_are_scheduled_once_and_unscheduled(cron: Connection) -> None:
    for _ in range(2):
        found = cron.execute("select job, schedule, command from two_tower.schedule_jobs()").fetchall()
        assert {job: schedule for job, schedule, _ in found} == scheduled(cron) == JOBS
        for _, _, command in found:
            cron.execute(command.encode())
    assert one(cron, "select two_tower.unschedule_jobs()") == len(JOBS)
    assert scheduled(cron) == {}
    assert one(cron, "select two_tower.unschedule_jobs()") == 0


@pytest.mark.xdist_group("cron")
def test_a_refresh_leaves_the_purge_to_pg_cron_unless_it_does_not_run_it(cron: Connection) -> None:
    def purged() -> bool:
        before = one(cron, "select coalesce(max(id), 0) from two_tower.job_runs where job = 'purge_logs'")
        refresh(cron)
        return bool(one(cron, "select max(id) > %s from two_tower.job_runs where job = 'purge_logs'", before))

    for scheduled_here, age, expected in (
        (False, "23 hours", False),
        (False, "25 hours", True),
        (True, "25 hours", False),
        (True, "47 hours", False),
        (True, "49 hours", True),
    ):
        cron.execute(f"select two_tower.{'schedule' if scheduled_here else 'unschedule'}_jobs()".encode())
        pretend(cron, "purge_logs", age)
        assert purged() is expected, (scheduled_here, age)
    cron.execute("select two_tower.unschedule_jobs()")


@pytest.mark.soak
@pytest.mark.xdist_group("cron")
def test_scheduled_jobs_refresh_a_like_within_70_seconds(cron: Connection) -> None:
    cron.execute("select two_tower.schedule_jobs()")
    vector = "select updated_at, embedding::text from user_embeddings where user_id = %s"
    before = cron.execute(vector, (WORLD.one_like,)).fetchone()
    cron.execute(
        "insert into user_video_decisions values (%s, %s, 'like')",
        (WORLD.one_like, next(v for v in WORLD.videos if v not in WORLD.decided(WORLD.one_like))),
    )
    started = time.monotonic()
    while cron.execute(vector, (WORLD.one_like,)).fetchone() == before:
        assert time.monotonic() - started < 70
        time.sleep(0.5)
    assert one(cron, "select pending_user_changes from two_tower.status") == 0
    done = cron.execute("select error, result from two_tower.job_log where job = 'refresh' order by id desc").fetchone()
    assert done is not None
    assert done[0] is None
    assert done[1]["vectors"] > 0
    # Its own log is purged with ours.
    while (
        one(cron, "select count(*) from cron.job_run_details where end_time is not null and status = 'succeeded'") == 0
    ):
        assert time.monotonic() - started < 75
        time.sleep(0.2)
    cron.execute("update cron.job_run_details set end_time = now() - interval '8 days' where end_time is not null")
    assert one(cron, "select (two_tower.purge_logs() ->> 'cron_runs')::int") > 0
    assert one(cron, "select two_tower.unschedule_jobs()") == len(JOBS)
    assert one(cron, "select count(*) from user_embeddings where user_id = %s", NOBODY) == 0


@pytest.mark.xdist_group("cron")
def test_jobs_run_as_the_owner_of_the_application_s_tables(cron: Connection) -> None:
    """Including those that a superuser scheduled before, or schedules later."""
    cron.execute("select two_tower.schedule_jobs()")
    cron.execute("create role app login")
    for table in READ:
        cron.execute(f"alter table public.{table} owner to app".encode())

    def usernames() -> dict[str, str]:
        return dict(cron.execute("select jobname, username from cron.job order by 1").fetchall())

    assert set(usernames().values()) == {"postgres"}
    migrate(cron.info.dsn)
    assert usernames() == dict.fromkeys(sorted(JOBS), "app")
    cron.execute("select two_tower.schedule_jobs()")
    assert usernames() == dict.fromkeys(sorted(JOBS), "app")
    cron.execute("set role app")
    assert column(cron, "select distinct scheduled from two_tower.jobs") == [True]
    assert one(cron, "select count(*) from two_tower.problems where what = 'job_unscheduled'") == 0
    for job in column(cron, "select command from two_tower.job_definitions()"):
        cron.execute(job.encode())
    assert one(cron, "select two_tower.unschedule_jobs()") == len(JOBS)
    assert one(cron, "select count(*) from two_tower.problems where what = 'job_unscheduled'") == 1
    cron.execute("reset role")
    cron.execute("alter role app nologin")
    with pytest.raises(errors.ObjectNotInPrerequisiteState) as caught:
        cron.execute("select two_tower.schedule_jobs()")
    assert "alter role app login" in (caught.value.diag.message_hint or "")
    # If the owner may not use pg_cron, everything works as without it.
    cron.execute("revoke usage on schema cron from app")
    with pytest.raises(errors.InsufficientPrivilege) as refused:
        cron.execute("select two_tower.schedule_jobs()")
    assert "grant usage on schema cron to app" in (refused.value.diag.message_hint or "")
    assert one(cron, "select two_tower.unschedule_jobs()") == 0
    cron.execute("set role app")
    cron.execute("select two_tower.purge_logs()")
    assert column(cron, "select distinct scheduled from two_tower.jobs") == [None]
    assert one(cron, "select count(*) from two_tower.problems where what in ('job_unscheduled', 'cron_down')") == 0
    cron.execute("reset role")
