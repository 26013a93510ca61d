"""``two-tower refresh``: which users its options mark, what a dry run reports, and what a limit leaves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from typer.testing import CliRunner, Result

from conftest import Connection, in_database
from two_tower.cli.main import app
from two_tower.lifecycle import registry
from world_fixtures import EPOCH, World, column, make_world, one

pytestmark = pytest.mark.world

WORLD = make_world()


def invoke(dsn: str, *words: str) -> Result:
    return CliRunner().invoke(app, ["refresh", *words, "--dsn", dsn])


def run(dsn: str, *words: str) -> dict[str, Any]:
    result = invoke(dsn, *words, "--json")
    assert result.exit_code == 0, result.stderr
    return dict(json.loads(result.stdout))


def likers(world: World, least: int) -> int:
    return sum(len(world.of(user, "like")) >= least for user in world.users)


def forget(db: Connection, *users: Any) -> None:
    """Deletes vectors without logging a change, as only an accident does."""
    db.execute("delete from two_tower.user_embeddings where user_id = any (%s)", (list(users),))


def test_refresh_without_options_processes_the_whole_log(dsn: str, db: Connection) -> None:
    db.execute("update user_video_decisions set decision_type = 'nope' where user_id = %s", (WORLD.one_like,))
    db.execute("update videos set price = 1 where id = %s", (WORLD.bare_video,))
    done = run(dsn)
    assert done["marked"] == done["failed"] == 0
    assert done["videos"] == 1
    assert done["users"] >= 1
    assert one(db, "select count(*) from two_tower.user_embeddings where user_id = %s", WORLD.one_like) == 0
    assert run(dsn) | {"seconds": 0} == {"marked": 0, "users": 0, "videos": 0, "vectors": 0, "failed": 0, "seconds": 0}


def test_a_dry_run_says_what_is_pending_and_changes_nothing(dsn: str, db: Connection) -> None:
    db.execute("delete from user_video_decisions where user_id = any (%s)", ([WORLD.one_like, WORLD.usual],))
    db.execute("update videos set price = 1 where id = %s", (WORLD.bare_video,))
    forget(db, WORLD.many)
    stamp = """select (select jsonb_agg(to_jsonb(c)) from two_tower.pending_users c)::text
        || (select md5(string_agg(e::text, '' order by e::text)) from two_tower.user_embeddings e)"""
    before = one(db, stamp)
    assert run(dsn, "--dry-run") == {"pending_users": 2, "pending_videos": 1, "to_mark": 0}
    assert run(dsn, "--dry-run", "--min-likes", "1") == {"pending_users": 2, "pending_videos": 1, "to_mark": 1}
    assert "2 users and 1 videos" in invoke(dsn, "--dry-run").stderr
    assert one(db, stamp) == before


def test_min_likes_marks_users_without_a_vector(dsn: str, db: Connection) -> None:
    forget(db, WORLD.one_like, WORLD.many)
    assert run(dsn, "--min-likes", "2")["marked"] == 1
    missing = "select user_id from user_features where like_count > 0 except select user_id from user_embeddings"
    assert column(db, missing) == [WORLD.one_like]
    assert run(dsn, "--min-likes", "1")["vectors"] == 1
    assert column(db, missing) == []


def test_include_existing_marks_all_but_writes_only_changed_vectors(dsn: str, db: Connection) -> None:
    db.execute(
        """update two_tower.user_embeddings e set embedding = o.embedding from two_tower.user_embeddings o
        where e.user_id = %s and o.user_id = %s""",
        (WORLD.usual, WORLD.many),
    )
    done = run(dsn, "--include-existing")
    assert done["marked"] == done["users"] == likers(WORLD, 1)
    assert done["vectors"] == 1
    assert run(dsn, "--include-existing", "--min-likes", "10")["marked"] == likers(WORLD, 10)


def test_recent_marks_users_with_a_recent_decision(dsn: str, db: Connection) -> None:
    assert run(dsn, "--recent", "1 hour", "--include-existing")["marked"] == 0
    db.execute("alter table user_video_decisions disable trigger two_tower_update")
    db.execute("update user_video_decisions set created_at = now() where user_id = %s", (WORLD.many,))
    db.execute("alter table user_video_decisions enable trigger two_tower_update")
    assert run(dsn, "--recent", "1 hour")["marked"] == 0
    assert run(dsn, "--recent", "1 hour", "--include-existing")["marked"] == 1
    newest = one(db, "select liked_video_ids from user_features where user_id = %s", WORLD.many)
    assert set(newest) == WORLD.of(WORLD.many, "like")
    assert EPOCH.year < 2026


def test_a_limit_leaves_the_rest_for_later(dsn: str, db: Connection) -> None:
    assert run(dsn, "--include-existing", "--limit", "7")["users"] == 7
    db.execute("insert into two_tower.user_changes (user_id) select id from auth.users")
    assert run(dsn, "--limit", "20")["users"] == 20
    assert run(dsn, "--dry-run")["pending_users"] == len(WORLD.users) - 20
    assert run(dsn)["users"] == len(WORLD.users) - 20


@pytest.mark.parametrize("words", [["--limit", "0"], ["--min-likes", "0"], ["--min-likes", "many"]])
def test_wrong_usage_exits_with_2(words: list[str], dsn: str) -> None:
    assert invoke(dsn, *words).exit_code == 2


def test_an_invalid_interval_is_named(dsn: str) -> None:
    result = invoke(dsn, "--recent", "soon")
    assert result.exit_code == 1
    assert 'invalid input syntax for type interval: "soon"' in result.stderr
    assert "Traceback" not in result.stderr


# ------------------------------------------------------------------------------------------------ one drain


def test_the_command_line_commits_without_waiting_for_the_disk(dsn: str, db: Connection) -> None:
    db.execute("""create table public.seen (commits text);
        create function public.look() returns trigger language plpgsql as
        $f$ begin insert into public.seen values (current_setting('synchronous_commit')); return null; end $f$;
        create trigger look after insert or update on user_features
            for each statement execute function public.look()""")
    db.execute("set synchronous_commit = on")
    db.execute("update user_video_decisions set decision_type = 'nope' where user_id = %s", (WORLD.one_like,))
    registry.refresh(db, lambda what, share: None)
    assert set(column(db, "select commits from public.seen")) == {"off"}
    assert one(db, "show synchronous_commit") == "on"


def test_refreshes_start_at_a_random_user_and_wrap_around(dsn: str, db: Connection) -> None:
    """With a limit of one user, the one who is taken is the first after a random place."""
    taken = set()
    for _ in range(12):
        db.execute("delete from two_tower.user_changes")
        db.execute("insert into two_tower.user_changes (user_id) select id from auth.users")
        registry.refresh(db, lambda what, share: None, 1)
        taken |= set(column(db, "select id from auth.users except select user_id from two_tower.user_changes"))
    assert len(taken) > 1
    assert registry.refresh(db, lambda what, share: None).counts["users"] == len(WORLD.users) - 1


def test_the_command_line_counts_popularity_once_a_day(dsn: str, db: Connection) -> None:
    runs = "select count(*) from two_tower.job_runs where job = 'update_popularity'"
    db.execute("delete from two_tower.job_runs")
    for _ in range(2):
        run(dsn)
        assert one(db, runs) == 1
    db.execute("update two_tower.job_runs set started_at = started_at - interval '25 hours'")
    run(dsn)
    assert one(db, runs) == 2


def test_progress_is_reported_and_ends_at_100_percent(dsn: str, db: Connection) -> None:
    db.execute("insert into two_tower.user_changes (user_id) select id from auth.users")
    told: list[float] = []
    registry.refresh(db, lambda what, share: told.append(share))
    assert told == sorted(told)
    assert told[0] == 0
    assert told[-1] == 1


# ------------------------------------------------------------------------------------------------ --every


@pytest.fixture
def service(dsn: str, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """``service()`` starts ``two-tower refresh --every 0.2``; its output goes to ``tmp_path``."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, every: str = "0.2", on: str = dsn) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "two_tower", "refresh", "--every", every, *words, "--dsn", on]
        number = len(started)
        with (tmp_path / f"out{number}").open("w") as out, (tmp_path / f"err{number}").open("w") as err:
            started.append(subprocess.Popen(command, stdout=out, stderr=err, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def like(db: Connection, user: UUID) -> UUID:
    """Likes a video without a decision for the user; returns it."""
    known = "select video_id from user_video_decisions where user_id = %s"
    video = one(db, f"select id from videos where id not in ({known}) limit 1", user)
    db.execute("insert into user_video_decisions values (%s, %s, 'like')", (user, video))
    return UUID(str(video))


def wait_for(what: Callable[[], Any], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def is_fresh(db: Connection, user: UUID, video: UUID) -> bool:
    query = """select %s = any (f.liked_video_ids)
            and exists (select from user_embeddings e where e.user_id = f.user_id)
        from user_features f where f.user_id = %s"""
    row = db.execute(query, (video, user)).fetchone()
    return bool(row and row[0])


OURS = "select pid from pg_stat_activity where application_name = 'two-tower refresh' and datname = current_database()"


def test_service_refreshes_reconnects_and_stops_on_request(
    service: Callable[..., subprocess.Popen[str]], db: Connection, tmp_path: Path
) -> None:
    process = service()
    user = WORLD.no_decisions

    def refreshed(times: int) -> bool:
        line = "1 users and 0 videos looked at, 1 vectors written"
        return (tmp_path / "out0").read_text().count(line) == times

    for times in (1, 2, 3):
        video = like(db, user)
        wait_for(partial(is_fresh, db, user, video))
        wait_for(partial(refreshed, times))
        assert process.poll() is None
        (pid,) = column(db, OURS)
        db.execute("select pg_terminate_backend(%s)", (pid,))
    video = like(db, user)
    wait_for(lambda: is_fresh(db, user, video))
    assert "trying again in 1 s" in (tmp_path / "err0").read_text()
    wait_for(lambda: refreshed(4))
    lines = (tmp_path / "out0").read_text().splitlines()
    time.sleep(1)
    assert (tmp_path / "out0").read_text().splitlines() == lines, "rounds that did nothing say nothing"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert column(db, OURS) == []


def test_the_service_waits_for_the_database_to_start(
    service: Callable[..., subprocess.Popen[str]], db: Connection, dsn: str, tmp_path: Path
) -> None:
    process = service(on=in_database(dsn, "not_there_yet"), every="60")
    wait_for(lambda: "trying again in 2 s" in (tmp_path / "err0").read_text())
    assert "Traceback" not in (tmp_path / "err0").read_text()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


@pytest.mark.soak
def test_concurrent_services_run_each_due_job_once(
    service: Callable[..., subprocess.Popen[str]], db: Connection, tmp_path: Path
) -> None:
    forget(db, WORLD.many)
    db.execute("update user_video_decisions set created_at = now() where user_id = %s", (WORLD.usual,))
    db.execute("delete from two_tower.job_runs")
    processes = [service("--json") for _ in range(3)]
    jobs = ["purge_logs", "sync_user_embeddings", "sync_video_embeddings", "update_popularity", "verify"]
    done = "select job from two_tower.job_runs where job <> 'refresh' order by 1"
    wait_for(lambda: len(column(db, done)) >= len(jobs) and len(column(db, OURS)) == len(processes))
    time.sleep(1)
    assert column(db, done) == jobs
    for process in processes:
        process.send_signal(signal.SIGTERM)
    assert [process.wait(20) for process in processes] == [0, 0, 0]
    told = [json.loads(line) for n in range(3) for line in (tmp_path / f"out{n}").read_text().splitlines()]
    assert sorted(job for line in told for job in line["jobs"]) == jobs


def test_a_refresh_that_fails_does_not_end_the_service(
    service: Callable[..., subprocess.Popen[str]], db: Connection, tmp_path: Path
) -> None:
    db.execute("alter table public.videos rename column maker to renamed")
    process = service()
    video = like(db, WORLD.no_decisions)
    wait_for(lambda: "the refresh failed: " in (tmp_path / "err0").read_text())
    db.execute("alter table public.videos rename column renamed to maker")
    wait_for(lambda: is_fresh(db, WORLD.no_decisions, video))
    assert process.poll() is None


@pytest.mark.parametrize(
    "words", [["--dry-run"], ["--limit", "5"], ["--recent", "1 hour"], ["--min-likes", "2"], ["--include-existing"]]
)
def test_the_service_refuses_options_of_a_single_run(words: list[str], dsn: str) -> None:
    assert invoke(dsn, "--every", "1", *words).exit_code == 2


@pytest.mark.parametrize("seconds", ["0", "-1", "often"])
def test_the_service_refuses_invalid_intervals(seconds: str, dsn: str) -> None:
    assert invoke(dsn, "--every", seconds).exit_code == 2
