"""Outages made on purpose: ``two-tower status`` reports each, exits with 1, and prints a remedy that ends it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg import errors, sql
from typer.testing import CliRunner

from conftest import Connect, Connection, Minute, NewDatabase, in_database, locked, new_cluster, remove_server
from two_tower.cli.main import app
from two_tower.server.embedded import Server
from two_tower.server.migrate import migrate
from two_tower.server.status import command
from world_fixtures import Client, column, heal, load, make_world, one, poison, refresh, tiny_model

pytestmark = pytest.mark.world

WORLD = make_world()
ME = WORLD.usual
BIN = Path(sys.executable).parent
VECTOR = "select embedding::text from user_embeddings where user_id = %s"


def status(dsn: str, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit code and report of ``two-tower status --json``."""
    result = CliRunner().invoke(app, ["status", "--json", "--dsn", dsn, *words])
    assert result.stdout, result.stderr
    return result.exit_code, json.loads(result.stdout)


def broken(dsn: str, *words: str) -> list[str]:
    """The problems found. The exit code and the text output must agree with them."""
    code, report = status(dsn, *words)
    found = [problem["what"] for problem in report["problems"]]
    assert code == (1 if found else 0)
    assert report["healthy"] is not bool(found)
    told = CliRunner().invoke(app, ["status", "--dsn", dsn, *words])
    assert told.exit_code == code
    for problem in report["problems"]:
        lines = [line for line in told.stdout.splitlines() if line.startswith(f"{problem['what']}: ")]
        assert any(line.endswith(f"→ {command(problem['remedy'])}") for line in lines)
    assert ("all is well" in told.stdout) is not bool(found)
    return found


def mend(dsn: str) -> None:
    """Runs every remedy as printed: verbs in this process, one after another, and statements in a shell."""
    environment = os.environ | {"DATABASE_URL": dsn, "PATH": f"{BIN}:{os.environ['PATH']}"}
    for remedy in dict.fromkeys(problem["remedy"] for problem in status(dsn)[1]["problems"]):
        if remedy.startswith("two-tower "):
            for verb in remedy.split(" && "):
                result = CliRunner().invoke(app, [*verb.split()[1:], "--dsn", dsn])
                assert result.exit_code == 0, f"{verb}: {result.output}"
            continue
        done = subprocess.run(command(remedy), shell=True, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{remedy}: {done.stderr}"


def like(db: Connection) -> None:
    """``ME`` likes one more video."""
    db.execute(
        """insert into user_video_decisions (user_id, video_id, decision_type)
        select %(me)s, v.id, 'like' from videos v
        where v.id not in (select d.video_id from user_video_decisions d where d.user_id = %(me)s) limit 1""",
        {"me": ME},
    )


def age(db: Connection) -> None:
    """Makes changes ten minutes old, as if no refresh had run."""
    db.execute("update two_tower.user_change_log set logged_at = logged_at - interval '10 minutes'")


# ------------------------------------------------------------------------------------------------ all is well


def test_status_of_a_healthy_system_exits_with_0_and_describes_it(dsn: str, db: Connection) -> None:
    like(db)
    refresh(db)
    assert broken(dsn) == []
    report = status(dsn)[1]
    assert report["active_version"] == "v1"
    assert (report["lag_seconds"], report["failed_changes"], report["mixed_versions"]) == (0, 0, 0)
    assert report["vectors_per_second"] > 0
    (coverage,) = report["coverage"]
    users = one(db, "select count(*) from user_features where like_count > 0")
    assert (coverage["share"], coverage["video_vectors"], coverage["user_vectors"]) == (1, len(WORLD.videos), users)
    jobs = {job["job"]: job for job in report["jobs"]}
    assert jobs["refresh"]["last_success"] is not None
    assert (jobs["refresh"]["scheduled"], jobs["refresh"]["failing"]) == (None, False)
    vectors = {size["relation"]: size for size in report["sizes"] if size["model_version"] == "v1"}
    assert set(vectors) == {"two_tower.user_embeddings_1", "two_tower.video_embeddings_1"}
    assert vectors["two_tower.video_embeddings_1"]["index_bytes"] == one(
        db, "select pg_indexes_size('two_tower.video_embeddings_1')"
    )


@pytest.mark.world(models=2)
def test_status_scans_the_decisions_once_for_all_versions(dsn: str, db: Connection) -> None:
    name = dsn.split("?")[0].rpartition("/")[2]
    db.execute(f"alter database {name} set track_functions = 'all'".encode())
    assert status(dsn)[0] == 0
    calls = "select funcname, calls from pg_stat_user_functions where funcname in ('liking_users', 'coverage_problems')"
    # A session counts its calls when it ends, which its client does not wait for.
    deadline = time.monotonic() + 10
    while not (counted := db.execute(calls.encode()).fetchall()) or not all(n for _, n in counted):
        assert time.monotonic() < deadline, counted
        time.sleep(0.05)
    assert sorted(counted) == [("coverage_problems", 2), ("liking_users", 1)]


def test_status_changes_nothing(dsn: str, db: Connection) -> None:
    like(db)
    writes = """select sum(n_tup_ins + n_tup_upd + n_tup_del) from pg_stat_user_tables"""
    db.execute("select pg_stat_force_next_flush()")
    before = one(db, writes)
    status(dsn, "--sample", "3")
    db.execute("select pg_stat_force_next_flush()")
    assert one(db, writes) == before


# ------------------------------------------------------------------------------------------------ outages


def test_a_stopped_refresh_is_reported_as_lag(dsn: str, db: Connection) -> None:
    like(db)
    assert broken(dsn) == []
    age(db)
    assert broken(dsn) == ["lag"]
    (problem,) = status(dsn)[1]["problems"]
    assert re.fullmatch(
        r"the oldest of 1 changes has waited 60\d s for a refresh, and may wait 120 s", problem["detail"]
    )
    db.execute("update two_tower.settings set value = '3600' where name = 'status_max_lag_seconds'")
    assert broken(dsn) == []
    db.execute("update two_tower.settings set value = '120' where name = 'status_max_lag_seconds'")
    mend(dsn)
    assert broken(dsn) == []


def test_failed_users_are_reported_with_error_and_next_attempt(dsn: str, db: Connection) -> None:
    poison(db, min(WORLD.of(WORLD.one_like, "like")))
    refresh(db)
    assert broken(dsn) == ["set_aside"]
    report = status(dsn)[1]
    failed = db.execute("select kind, id::text, error from two_tower.failed_changes order by id").fetchall()
    assert sorted((row["kind"], row["id"], row["error"]) for row in report["set_aside"]) == sorted(failed)
    told = CliRunner().invoke(app, ["status", "--dsn", dsn]).stdout
    assert f"{failed[0][1]}, 1 attempts, next in " in told
    # After the cause is removed: the remedy, then a refresh.
    heal(db)
    db.execute("delete from two_tower.video_changes")
    mend(dsn)
    refresh(db)
    assert broken(dsn) == []


@pytest.mark.sampled(1)
@pytest.mark.parametrize("by", ["call two_tower.refresh()", "two-tower refresh"])
def test_a_refresh_that_fails_as_a_whole_is_a_failing_job(by: str, dsn: str, db: Connection) -> None:
    like(db)
    db.execute("alter function two_tower.refresh_set(text, uuid[]) rename to elsewhere")
    if by.startswith("call"):
        with pytest.raises(errors.UndefinedFunction):
            db.execute(by.encode())
    else:
        assert CliRunner().invoke(app, ["refresh", "--dsn", dsn]).exit_code == 1
    assert broken(dsn) == ["job_failing"]
    assert "refresh_set" in status(dsn)[1]["problems"][0]["detail"]
    db.execute("alter function two_tower.elsewhere(text, uuid[]) rename to refresh_set")
    mend(dsn)
    assert broken(dsn) == []


@pytest.mark.world(models=2)
def test_vectors_without_a_pending_change_are_reported_as_missing(dsn: str, db: Connection) -> None:
    db.execute("delete from two_tower.user_embeddings where user_id = %s and model_version = 'v2'", (ME,))
    db.execute(
        "delete from two_tower.video_embeddings where video_id = %s and model_version = 'v1'", (WORLD.bare_video,)
    )
    assert broken(dsn) == ["coverage", "coverage"]
    details = sorted(problem["detail"] for problem in status(dsn)[1]["problems"])
    assert [detail[:46] for detail in details] == [
        "model v1 (standby) lacks the vectors of 1 vide",
        "model v2 (active) lacks the vectors of 1 users",
    ]
    share = {row["model_version"]: row["share"] for row in status(dsn)[1]["coverage"]}
    assert 0.99 < share["v1"] < 1
    mend(dsn)
    assert broken(dsn) == []


def test_pending_changes_count_as_lag_not_as_missing(dsn: str, db: Connection) -> None:
    db.execute("insert into user_video_decisions values (%s, %s, 'like')", (WORLD.no_decisions, WORLD.videos[0]))
    assert broken(dsn) == []
    assert status(dsn)[1]["pending_user_changes"] == 1


def test_a_disabled_trigger_is_reported_and_its_missed_changes_repaired(dsn: str, db: Connection) -> None:
    before = one(db, VECTOR, ME)
    db.execute("alter table user_video_decisions disable trigger two_tower_insert")
    like(db)
    db.execute("drop trigger two_tower_delete on video_tags")
    assert broken(dsn) == ["triggers", "triggers"]
    mend(dsn)
    assert broken(dsn) == []
    assert one(db, VECTOR, ME) != before


@pytest.mark.soak
def test_a_missing_index_is_reported(dsn: str, db: Connection) -> None:
    db.execute("drop index two_tower.video_embeddings_1_hnsw")
    assert broken(dsn) == ["index"]
    mend(dsn)
    assert broken(dsn) == []


@pytest.mark.soak
@pytest.mark.world(models=2)
def test_a_view_of_mixed_versions_is_reported(dsn: str, db: Connection) -> None:
    assert status(dsn)[1]["mixed_versions"] == 0
    db.execute(
        """create or replace view two_tower.active_user_embeddings with (security_invoker = true) as
        select user_id, embedding, model_version, updated_at from two_tower.user_embeddings"""
    )
    assert broken(dsn) == ["mixed_versions"]
    mend(dsn)
    assert broken(dsn) == []


@pytest.mark.world(models=1)
def test_a_catalogue_of_which_nothing_is_shown_is_reported(dsn: str, db: Connection) -> None:
    assert broken(dsn) == []
    shown = "select count(*) from two_tower.visible_videos"
    before = one(db, shown)
    db.execute("alter table videos alter published_at drop default")
    db.execute("update videos set published_at = null")
    assert broken(dsn) == ["nothing_shown"]
    assert "published_at is null in all" in status(dsn)[1]["problems"][0]["detail"]
    mend(dsn)
    assert broken(dsn) == []
    assert one(db, shown) == one(db, "select count(*) from videos") >= before
    assert one(db, "insert into videos (product_url) values ('https://a.example/1') returning published_at is not null")

    view = "create or replace view two_tower.visible_videos as select v.id from public.videos v where "
    for condition, said in (
        ("published_at > '2090-01-01'", "a video is shown when published_at > '2090-01-01', and none is"),
        ("false", "a video is shown when false, and none is"),
        ("1 / (length(product_url) * 0) = 1", "fails: division by zero"),
    ):
        db.execute("update two_tower.catalogue_rule set visible_when = %s", (condition,))
        db.execute(f"{view} ({condition})".encode())
        assert broken(dsn) == ["nothing_shown"], condition
        (problem,) = status(dsn)[1]["problems"]
        assert said in problem["detail"], condition
        assert problem["remedy"] == "select two_tower.set_visible_when('…')", condition
        db.execute("select two_tower.set_visible_when('published_at <= now()')")
        assert broken(dsn) == [], condition

    db.execute("drop view two_tower.visible_videos")
    assert broken(dsn) == ["nothing_shown"]
    mend(dsn)
    assert broken(dsn) == []
    db.execute("delete from user_video_decisions")
    db.execute("delete from videos")
    refresh(db)
    assert "nothing_shown" not in broken(dsn)


def test_without_a_model_the_next_step_is_suggested(database: NewDatabase) -> None:
    dsn = database()
    assert broken(dsn) == ["no_model"]
    remedy = "select remedy from two_tower.problems"
    with psycopg.connect(dsn, autocommit=True) as db:
        assert one(db, remedy) == "two-tower train"
        load(db, WORLD)
        refresh(db)
        tiny_model(db, activate=False)
        assert one(db, remedy) == "two-tower model activate"
    mend(dsn)
    assert broken(dsn) == []


@pytest.mark.soak
def test_a_sample_finds_stored_vectors_that_differ_from_computed_ones(dsn: str, db: Connection) -> None:
    assert broken(dsn, "--sample", "5") == []
    sample = {row["what"]: row for row in status(dsn, "--sample", "5")[1]["sample"]}
    assert sample["recall"]["value"] == 1
    assert sample["parity"]["value"] < sample["parity"]["limit"]
    db.execute(
        """update two_tower.user_embeddings e
        set embedding = (select v.embedding from two_tower.video_embeddings v order by v.video_id limit 1)"""
    )
    assert broken(dsn) == []
    assert broken(dsn, "--sample", "5") == ["parity"]
    db.execute("update two_tower.settings set value = '1.1' where name = 'gate_min_recall'")
    assert broken(dsn, "--sample", "5") == ["recall", "parity"]
    for problem in status(dsn, "--sample", "5")[1]["problems"]:
        db.execute(problem["remedy"].encode())
    assert broken(dsn, "--sample", "5") == ["recall"]


# ------------------------------------------------------------------------------------------------ pg_cron for real


@pytest.fixture(scope="module")
def cron_server() -> Iterator[Server]:
    """A cluster of this module's own, with the world and a model in the database of pg_cron."""
    server = new_cluster("two-tower-status-")
    with locked("cron"):
        server.start()
    migrate(server.dsn)
    with psycopg.connect(server.dsn, autocommit=True) as db:
        load(db, WORLD)
        tiny_model(db)
    yield server
    remove_server(server)


@pytest.fixture
def cron(cron_server: Server) -> Iterator[tuple[str, Connection]]:
    """Its DSN, and a connection."""
    with psycopg.connect(cron_server.dsn, autocommit=True) as db:
        yield cron_server.dsn, db


@pytest.mark.soak
@pytest.mark.xdist_group("cron")
def test_the_printed_remedies_end_an_outage_of_jobs_refresh_and_a_user(
    cron: tuple[str, Connection], cron_minute: Minute
) -> None:
    dsn, db = cron
    db.execute("select two_tower.schedule_jobs()")
    assert broken(dsn) == []
    # The jobs are unscheduled; meanwhile one video cannot be stored, and users go on deciding.
    db.execute("select two_tower.unschedule_jobs()")
    poison(db, min(WORLD.of(WORLD.one_like, "like")))
    refresh(db)
    like(db)
    age(db)
    assert broken(dsn) == ["lag", "job_unscheduled", "set_aside"]
    # The cause is removed, and every remedy run as printed; pg_cron does the rest.
    heal(db)
    mend(dsn)
    cron_minute(db, lambda: not status(dsn)[0])
    assert broken(dsn) == []
    assert one(db, "select count(*) from two_tower.failed_changes") == 0


@pytest.mark.xdist_group("cron")
def test_a_job_run_by_another_scheduler_is_not_reported_as_missing(cron: tuple[str, Connection]) -> None:
    dsn, db = cron
    db.execute("select two_tower.unschedule_jobs()")
    assert broken(dsn) == ["job_unscheduled"]
    db.execute("update two_tower.settings set value = 'false' where name = 'status_expects_jobs'")
    assert broken(dsn) == []
    db.execute("update two_tower.settings set value = 'true' where name = 'status_expects_jobs'")


@pytest.mark.sampled(1)
@pytest.mark.xdist_group("cron")
@pytest.mark.parametrize("change", ["active = false", "database = 'elsewhere'"])
def test_a_paused_or_foreign_job_is_scheduled_again(change: str, cron: tuple[str, Connection]) -> None:
    dsn, db = cron
    db.execute("select two_tower.schedule_jobs()")
    kept = column(db, "select jobid from cron.job where jobname <> 'two_tower_refresh' order by 1")
    db.execute(f"update cron.job set {change} where jobname = 'two_tower_refresh'".encode())
    assert broken(dsn) == ["job_unscheduled"]
    assert status(dsn)[1]["problems"][0]["detail"] == "pg_cron does not run refresh"
    mend(dsn)
    assert broken(dsn) == []
    assert column(db, "select jobid from cron.job where jobname <> 'two_tower_refresh' order by 1") == kept


@pytest.mark.xdist_group("cron")
def test_a_failed_run_of_pg_cron_is_a_failing_job(cron: tuple[str, Connection]) -> None:
    dsn, db = cron
    db.execute("select two_tower.schedule_jobs()")
    # What pg_cron writes if it cannot connect: the job itself never ran.
    db.execute(
        """insert into cron.job_run_details (jobid, database, username, command, status, return_message, end_time)
        select jobid, database, username, command, 'failed', 'connection failed', now()
        from cron.job where jobname = 'two_tower_purge'"""
    )
    assert broken(dsn) == ["job_failing"]
    assert re.search("purge_logs failed at .*: connection failed", status(dsn)[1]["problems"][0]["detail"])
    mend(dsn)
    assert broken(dsn) == []


@pytest.mark.xdist_group("cron")
def test_a_terminated_pg_cron_launcher_is_reported(cron: tuple[str, Connection], cron_server: Server) -> None:
    dsn, db = cron
    db.execute("select two_tower.schedule_jobs()")
    assert broken(dsn) == []
    launcher = "select pg_terminate_backend(pid, 30000) from pg_stat_activity where backend_type = 'pg_cron launcher'"
    assert one(db, launcher)
    assert broken(dsn) == ["cron_down"]
    db.close()
    cron_server.stop()
    cron_server.start()
    started = time.monotonic()
    while status(dsn)[0]:  # the launcher starts after the server
        assert time.monotonic() - started < 60
        time.sleep(0.1)


# ------------------------------------------------------------------------------------------------ who looks, and how


def test_the_service_sees_what_the_owner_sees(db: Connection, client: Client) -> None:
    like(db)
    age(db)
    for view in ("status", "coverage", "jobs", "sizes", "problems", "failed_changes"):
        query = f"select to_jsonb(v) - 'lag' - 'lag_seconds' - 'detail' from two_tower.{view} v order by 1"
        with client.as_("service_role") as connection:
            assert column(connection, query) == column(db, query), view


@pytest.mark.world(models=2)
def test_a_login_for_monitoring_sees_what_the_owner_sees(dsn: str, db: Connection) -> None:
    name, role = dsn.split("?")[0].rpartition("/")[2], f"monitor_{os.getpid()}"
    poison(db, min(WORLD.of(WORLD.one_like, "like")))
    refresh(db)
    like(db)
    age(db)
    db.execute(f"create role {role} login in role two_tower_viewer".encode())
    try:
        seen, own = (status(target)[1] for target in (in_database(dsn, name, role), dsn))
    finally:
        db.execute(f"drop role {role}".encode())
    assert [problem["what"] for problem in seen["problems"]] == ["lag", "set_aside"]
    for report in (seen, own):
        report.pop("lag")
        report.pop("lag_seconds")
        report["problems"] = [(problem["what"], problem["remedy"]) for problem in report["problems"]]
    assert seen == own


def test_a_database_that_is_not_migrated_is_reported(empty_dsn: str) -> None:
    name = empty_dsn.split("?")[0].rpartition("/")[2]
    result = CliRunner().invoke(app, ["status", "--dsn", empty_dsn])
    assert result.exit_code == 1
    assert f"database {name} is not migrated" in result.stderr
    assert "two-tower migrate" in result.stderr
    doctor = CliRunner().invoke(app, ["doctor", "--dsn", empty_dsn])
    assert doctor.exit_code == 1
    assert re.search(r"fail +migrations +none", doctor.stdout)


def test_a_database_of_an_older_release_is_reported(dsn: str, db: Connection) -> None:
    db.execute("drop view two_tower.problems")
    result = CliRunner().invoke(app, ["status", "--dsn", dsn])
    assert result.exit_code == 1
    assert "is older than this program" in result.stderr


@pytest.mark.parametrize("words", [["5"], ["--sample", "0"], ["--watch", "0"]])
def test_wrong_usage_exits_with_2(words: list[str], dsn: str) -> None:
    assert CliRunner().invoke(app, ["status", "--dsn", dsn, *words]).exit_code == 2


def test_watching_ends_at_an_interrupt_with_the_latest_exit_code(dsn: str, db: Connection) -> None:
    with program("status", "--watch", "0.2", "--json", "--dsn", dsn) as watching:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["healthy"] is True
        like(db)
        age(db)
        while not (last := json.loads(watching.stdout.readline()))["problems"]:
            pass
        assert [problem["what"] for problem in last["problems"]] == ["lag"]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 1


@pytest.mark.soak
def test_watching_continues_while_the_database_is_down(dsn: str, connect: Connect, cluster: Server) -> None:
    name = dsn.split("?")[0].rpartition("/")[2]
    rename = sql.SQL("alter database {} rename to {}")
    with program("status", "--watch", "0.2", "--json", "--dsn", dsn) as watching, psycopg.connect(
        cluster.dsn, autocommit=True
    ) as admin:  # fmt: skip
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["healthy"] is True
        swap(admin, rename.format(sql.Identifier(name), sql.Identifier(f"{name}_away")))
        while "error" not in json.loads(watching.stdout.readline()):
            pass
        swap(admin, rename.format(sql.Identifier(f"{name}_away"), sql.Identifier(name)))
        while not json.loads(watching.stdout.readline())["healthy"]:
            pass
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0


def swap(admin: Connection, rename: sql.Composed) -> None:
    """Renames a database between two reads of it."""
    for _ in range(600):
        try:
            admin.execute(rename)
        except errors.ObjectInUse:
            continue
        return
    pytest.fail("the database is never unused")


# ------------------------------------------------------------------------------------------------ Prometheus


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Values by name and labels' values."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def metrics(dsn: str, *words: str) -> dict[tuple[str, ...], float]:
    result = CliRunner().invoke(app, ["metrics", "--dsn", dsn, *words])
    assert result.exit_code == 0, result.stderr
    return samples(result.stdout)


def test_metrics_agree_with_status(dsn: str, db: Connection) -> None:
    like(db)
    refresh(db)
    found, (_, report) = metrics(dsn, "--sample", "3"), status(dsn)
    assert found["two_tower_up",] == found["two_tower_healthy",] == 1
    assert found["two_tower_active_model", "v1"] == 1
    assert found["two_tower_vectors", "user", "active", "v1"] == report["user_vectors"]
    assert found["two_tower_coverage_ratio", "active", "v1"] == 1
    assert found["two_tower_refresh_vectors_per_second",] == report["vectors_per_second"]
    assert found["two_tower_sample_recall", "v1"] == 1
    ran = one(db, "select extract(epoch from last_success)::float8 from two_tower.jobs where job = 'refresh'")
    assert found["two_tower_job_last_success_timestamp_seconds", "refresh"] == pytest.approx(ran)
    assert ("two_tower_job_scheduled", "refresh") not in found
    like(db)
    age(db)
    found = metrics(dsn)
    assert found["two_tower_healthy",] == 0
    assert found["two_tower_problems", "lag"] == 1
    assert found["two_tower_lag_seconds",] > 600
    assert found["two_tower_pending_changes", "user"] == 1


@pytest.mark.parametrize("fault", ["nobody there", "not migrated"])
def test_metrics_report_an_unreachable_database_as_down(fault: str, database: NewDatabase) -> None:
    dsn = "postgresql://postgres@127.0.0.1:9/x" if fault == "nobody there" else database(empty=True)
    result = CliRunner().invoke(app, ["metrics", "--dsn", dsn])
    assert result.exit_code == 0
    assert samples(result.stdout)["two_tower_up",] == 0
    assert {name for name, *_ in samples(result.stdout)} == {"two_tower_up", "two_tower_look_seconds"}
    assert {"nobody there": "refused", "not migrated": "is not migrated"}[fault] in result.stderr


def test_the_metrics_port_reads_at_every_request_and_survives_an_outage(
    database: NewDatabase, world_template: str, cluster: Server
) -> None:
    dsn = database(template=world_template)
    with program("metrics", "--port", "0", "--dsn", dsn) as server:
        assert server.stderr is not None
        url = server.stderr.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", url)

        def ask() -> dict[tuple[str, ...], float]:
            with urlopen(url, timeout=60) as answer:
                return samples(answer.read().decode())

        assert ask()["two_tower_healthy",] == 1
        with psycopg.connect(dsn, autocommit=True) as db:
            like(db)
            age(db)
        assert ask()["two_tower_problems", "lag"] == 1
        answers: list[dict[tuple[str, ...], float]] = []
        threads = [threading.Thread(target=lambda: answers.append(ask())) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [answer["two_tower_up",] for answer in answers] == [1] * 5
        with psycopg.connect(cluster.dsn, autocommit=True) as admin:
            name = dsn.split("?")[0].rpartition("/")[2]
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
        assert ask()["two_tower_up",] == 0
        assert server.poll() is None
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0


def test_a_port_in_use_is_reported(dsn: str) -> None:
    with program("metrics", "--port", "0", "--dsn", dsn) as server:
        assert server.stderr is not None
        port = server.stderr.readline().strip().rpartition(":")[2].partition("/")[0]
        result = CliRunner().invoke(app, ["metrics", "--port", port, "--dsn", dsn])
        assert result.exit_code == 1
        assert f"cannot listen on 127.0.0.1:{port}" in result.stderr
        server.kill()


def program(*words: str) -> subprocess.Popen[str]:
    """``two-tower`` in a process of its own."""
    return subprocess.Popen([BIN / "two-tower", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
