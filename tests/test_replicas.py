"""A standby for reading: every routine of clients and every verb, with a standby that is behind, in conflict with
replay, killed, or promoted while likes are written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx2
import polars as pl
import psycopg
import pytest
from psycopg import errors
from typer.testing import CliRunner

import two_tower.server.reading as reading_module
from conftest import Connection, in_database, remove_server, server_directory
from rest_api import PREFIX, serve
from test_crash import kill
from test_refresh import assert_fresh
from test_security import ASKERS, ME, RPCS, WORLD, attempt, calls_of_routines, relations
from two_tower import rows
from two_tower.bench.rest import sign
from two_tower.cli.main import app
from two_tower.errors import UserError
from two_tower.server.connection import connect
from two_tower.server.embedded import Server
from two_tower.server.migrate import migrate
from two_tower.server.reading import PASSING, reading, replica_says
from two_tower.ui import actions, queries, session
from world_fixtures import Client, column, load, one, refresh, tiny_model

pytestmark = [pytest.mark.database, pytest.mark.xdist_group("replicas")]

LOGIN = "replicas_login"
"""May switch to every role of ASKERS."""
AWAY = "postgresql://postgres@/two_tower?host=/nonexistent"


@dataclass
class Pair:
    """The primary and its standby."""

    primary: Server
    standby: Server

    def on_primary(self) -> Connection:
        return psycopg.connect(self.primary.dsn, autocommit=True)

    def on_standby(self) -> Connection:
        return psycopg.connect(self.standby.dsn, autocommit=True)

    def follow(self) -> None:
        """Waits until the standby has everything that the primary has committed."""
        with self.on_primary() as db:
            turn = one(db, "update public.turns set n = n + 1 returning n")
        with self.on_standby() as db:
            until(lambda: one(db, "select n from public.turns") == turn)

    def as_anyone(self, server: Server) -> Client:
        dsn = in_database(server.dsn, urlsplit(server.dsn).path.removeprefix("/"), LOGIN)
        return Client(psycopg.connect(dsn, autocommit=False))


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def standby_of(primary: Server) -> Server:
    """Another server, not started, that streams from the primary."""
    standby = Server(server_directory("two-tower-standby-"), durable=False)
    data = standby.directory / ".two-tower" / "data"
    data.mkdir(parents=True)
    data.parent.chmod(0o755)
    data.chmod(0o700)
    owner = primary.data.stat()
    os.chown(data, owner.st_uid, owner.st_gid)
    drop: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    program = primary.installation.bindir / "pg_basebackup"
    command: list[Any] = [program, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-D", data, "-d", primary.dsn]
    who_runs = drop if os.geteuid() == 0 else {}
    done = subprocess.run(command, cwd="/", check=False, capture_output=True, text=True, **who_runs)
    assert done.returncode == 0, done.stderr
    return standby


@pytest.fixture(scope="module")
def servers() -> Iterator[Pair]:
    """The small world with the random model ``v1`` on the primary, and a standby that streams it."""
    primary = Server(server_directory("two-tower-primary-"), durable=False)  # copies would share its identifier
    made = [primary]
    try:
        primary.start()
        migrate(primary.dsn)
        with psycopg.connect(primary.dsn, autocommit=True) as db:
            db.execute("alter system set synchronous_commit = on")  # what is sent is what is flushed
            db.execute("select pg_reload_conf()")
            db.execute("select two_tower.unschedule_jobs()")
            db.execute("update two_tower.settings set value = 'false' where name = 'status_expects_jobs'")
            db.execute(f"create role {LOGIN} login noinherit in role authenticator, two_tower_viewer".encode())
            db.execute("create table public.turns (n int)")
            db.execute("insert into public.turns values (0)")
            load(db, WORLD)
            tiny_model(db)
            refresh(db)
        made.append(standby_of(primary))
        made[1].start()
        yield Pair(*made)
    finally:
        for server in made:
            remove_server(server)


@pytest.fixture
def pair(servers: Pair, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """Both running, with the standby up to date, and in the variables that an operator sets."""
    servers.standby.start()
    servers.follow()
    monkeypatch.setenv("DATABASE_URL", servers.primary.dsn)
    monkeypatch.setenv("DATABASE_READ_URL", servers.standby.dsn)
    monkeypatch.setattr(reading_module, "PAUSES", (0.0, 0.0))
    return servers


def who(connection: Connection) -> str:
    return "replica" if rows.one(connection, "select pg_is_in_recovery()") else "primary"


@dataclass
class Said:
    """Collects messages while something is read."""

    lines: list[str] = field(default_factory=list)

    def __call__(self, line: str) -> None:
        self.lines.append(line)

    @property
    def all(self) -> str:
        return "\n".join(self.lines)


# ------------------------------------------------------------------------------------------ routines and relations


def refusal(answer: str) -> str | None:
    """The SQLSTATE, if the answer is one."""
    return answer if re.fullmatch(r"[0-9A-Z]{5}", answer) else None


def test_client_routines_answer_on_a_standby_or_name_the_primary(pair: Pair) -> None:
    with pair.on_primary() as db:
        volatile = set(
            column(
                db,
                """select proname from pg_proc
                where pronamespace = 'public'::regnamespace and prokind = 'f' and provolatile = 'v'""",
            )
        )
    here, there = pair.as_anyone(pair.primary), pair.as_anyone(pair.standby)
    for name, query in RPCS.items():
        for asker in ASKERS:
            expected, found = attempt(here, asker, query), attempt(there, asker, query)
            if name.split()[0] not in volatile:
                assert found == expected, (name, asker)
            elif expected not in ("42501", "28000"):
                assert found == "25006", (name, asker)
            else:
                assert found in (expected, "25006"), (name, asker)
    here.connection.close()
    there.connection.close()


@pytest.mark.soak
def test_read_only_routines_fail_on_a_standby_only_as_on_the_primary(pair: Pair) -> None:
    """Every routine that only reads, with nulls; require_primary() reports a standby."""
    with pair.on_primary() as db:
        calls = calls_of_routines(db)
    here, there = pair.as_anyone(pair.primary), pair.as_anyone(pair.standby)
    for signature, volatility, query in calls:
        if volatility != "v" and not signature.startswith("two_tower.require_primary("):
            assert refusal(attempt(there, "service", query)) == refusal(attempt(here, "service", query)), signature
    here.connection.close()
    there.connection.close()


def test_writing_routines_say_that_this_is_a_standby(pair: Pair) -> None:
    there = pair.as_anyone(pair.standby)
    for name in ("embed_user", "next_videos", "set_choices"):
        with pytest.raises(
            errors.ReadOnlySqlTransaction, match=rf"{name}\(\) writes, and this server is a standby"
        ) as caught:
            there.rpc("authenticated", ME, name)
        assert caught.value.diag.message_hint == "Call it on the primary."
    there.connection.close()


def test_relations_have_the_same_rows_on_a_standby(pair: Pair) -> None:
    with pair.on_primary() as db:
        names = [name for name, kind, _ in relations(db) if kind != "S"]
    here, there = pair.as_anyone(pair.primary), pair.as_anyone(pair.standby)
    for name in names:
        query = f"select count(*)::int from {name}"
        assert attempt(there, "service", query) == attempt(here, "service", query), name
    here.connection.close()
    there.connection.close()


def test_lists_on_a_standby_are_those_of_the_primary(pair: Pair) -> None:
    newcomer = uuid4()
    with pair.on_primary() as db:
        db.execute("insert into auth.users (id) values (%s)", (newcomer,))
        db.execute(
            """insert into public.user_video_decisions (user_id, video_id, decision_type)
            select %s, id, 'like' from unnest(%s) as v (id)""",
            (newcomer, WORLD.published[3:6]),
        )
        assert one(db, "select count(*) from two_tower.user_embeddings where user_id = %s", newcomer) == 0
    pair.follow()
    here, there = pair.as_anyone(pair.primary), pair.as_anyone(pair.standby)
    for user in (newcomer, ME):
        found = there.rpc("authenticated", user, "recommend_videos", limit=10, because=True)
        assert {row["reason"] for row in found} == {"taste"}
        assert found == here.rpc("authenticated", user, "recommend_videos", limit=10, because=True)
    for name, arguments in (
        ("rank_candidates", {"video_ids": WORLD.published[:20]}),
        ("get_user_embedding_features", {"user_id": newcomer}),
        ("export_user_data", {}),
    ):
        assert there.rpc("authenticated", newcomer, name, **arguments) == here.rpc(
            "authenticated", newcomer, name, **arguments
        ), name
    here.connection.close()
    there.connection.close()


def test_bulk_lists_over_two_connections_equal_those_of_the_primary(pair: Pair, tmp_path: Path) -> None:
    """Both use one snapshot, which a standby exports like a primary."""
    words = ["recommend", "--all", "--limit", "5", "--workers", "2", "--output"]
    for name, more in (("replica.csv", []), ("primary.csv", ["--dsn", pair.primary.dsn])):
        done = CliRunner().invoke(app, [*words, str(tmp_path / name), *more])
        assert done.exit_code == 0, done.output
        assert "warning" not in done.output
    assert (tmp_path / "replica.csv").read_bytes() == (tmp_path / "primary.csv").read_bytes()


def test_a_standby_reports_the_same_problems_as_its_primary(pair: Pair) -> None:
    """pg_cron starts nothing there, and no subscription runs."""
    with pair.on_standby() as db, pair.on_primary() as primary:
        problems = "select what from two_tower.problems order by 1"
        assert column(db, problems) == column(primary, problems)


@pytest.mark.soak
def test_postgrest_in_front_of_a_standby_reads(pair: Pair, node_modules: Path) -> None:
    """PostgREST calls writing routines in a read-write transaction, which PostgreSQL itself refuses."""
    token = sign(role="authenticated", sub=str(ME))
    with (
        serve(pair.standby.dsn, node_modules, PGRST_DB_CHANNEL_ENABLED="false") as url,
        httpx2.Client(base_url=url + PREFIX, headers={"Authorization": f"Bearer {token}"}) as api,
    ):
        answer = api.post("/rpc/recommend_videos", json={"limit": 5})
        assert (answer.status_code, len(answer.json())) == (200, 5)
        refused = api.post("/rpc/embed_user", json={})
        assert (refused.status_code, refused.json()["code"]) == (400, "0A000")
        assert refused.json()["message"] == "cannot set transaction read-write mode during recovery"


# ------------------------------------------------------------------------------------------------ askers


def test_reads_go_to_the_replica_unless_a_database_is_given(
    pair: Pair, cluster: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Said()
    assert reading(None, who, said) == "replica"
    assert reading(None, who, said, opened=queries.viewer) == "replica"
    assert reading(pair.primary.dsn, who, said) == "primary"
    assert reading(pair.standby.dsn, who, said) == "replica"
    monkeypatch.setenv("DATABASE_READ_URL", "")
    assert reading(None, who, said) == "primary"
    monkeypatch.setenv("DATABASE_READ_URL", pair.primary.dsn)
    assert reading(None, who, said) == "primary"
    assert said.lines == []


def test_a_replica_of_another_primary_is_refused(pair: Pair, cluster: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in (cluster.dsn, in_database(pair.standby.dsn, "postgres"), in_database(pair.primary.dsn, "template1")):
        monkeypatch.setenv("DATABASE_READ_URL", other)
        with pytest.raises(UserError, match="is no replica of two_tower, to which DATABASE_URL leads") as caught:
            reading(None, who, Said())
        assert caught.value.hint == "let it lead to two_tower on a streaming standby, or leave it out"


def test_either_server_answers_if_the_other_is_down(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Said()
    with monkeypatch.context() as patch:
        patch.setenv("DATABASE_READ_URL", AWAY)
        assert reading(None, who, said) == "primary"
    assert re.fullmatch(r"warning: the replica does not answer: .*; the primary answers", said.all)
    said = Said()
    with monkeypatch.context() as patch:
        patch.setenv("DATABASE_URL", AWAY)
        assert reading(None, who, said) == "replica"
    assert re.fullmatch(r"warning: the primary does not answer \(.*\); the replica says what it knows", said.all)
    said = Said()
    with monkeypatch.context() as patch:
        patch.delenv("DATABASE_URL")
        patch.chdir(tmp_path)
        assert reading(None, who, said) == "replica"
    assert said.lines == []


def test_status_says_how_the_replica_stands(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)
    assert shown["replica"] == "has what the primary has"
    assert "replica" not in CliRunner().invoke(app, ["status", "--dsn", pair.primary.dsn]).stdout
    with pair.on_primary() as db, pair.on_standby() as standby:
        standby.execute("select pg_wal_replay_pause()")
        db.execute("update public.turns set n = n")
        assert re.match(r"the replica is behind: after 1 s it lacks [\d,]+ bytes", replica_says() or "")
        standby.execute("select pg_wal_replay_resume()")
    monkeypatch.setenv("DATABASE_READ_URL", AWAY)
    assert (replica_says() or "").startswith("the replica does not answer: ")
    monkeypatch.setenv("DATABASE_READ_URL", in_database(pair.primary.dsn, "template1"))
    assert "is no replica of two_tower" in (replica_says() or "")
    monkeypatch.setenv("DATABASE_READ_URL", "")
    assert replica_says() is None


# ------------------------------------------------------------------------------------------------ behind, and cancelled


def liked(connection: Connection) -> object:
    return one(connection, "select count(*) from public.user_video_decisions where user_id = %s", ME)


def pending(connection: Connection) -> object:
    return one(connection, "select pending_user_changes from two_tower.status")


def active(connection: Connection) -> object:
    return one(connection, "select two_tower.active_version()")


def test_reads_see_earlier_commits_however_far_the_replica_lags(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A like, a refresh, whose batches do not wait for the disk, and an activated version."""
    free = next(v for v in WORLD.videos if v not in WORLD.decided(ME))
    like = "insert into public.user_video_decisions (user_id, video_id, decision_type) values (%s, %s, 'like')"
    behind = (
        r"warning: the replica is behind: after 0.2 s it lacks [\d,]+ bytes of the primary's log; the primary answers"
    )
    with pair.on_primary() as db, pair.on_standby() as standby:
        changes: list[tuple[Callable[[Connection], object], Callable[[], object]]] = [
            (liked, lambda: db.execute(like, (ME, free))),
            (pending, lambda: refresh(db)),
            (active, lambda: tiny_model(db, "v2", seed=2)),
        ]
        for question, change in changes:

            def work(connection: Connection, question: Callable[[Connection], object] = question) -> object:
                return who(connection), question(connection)

            before = question(standby)
            standby.execute("select pg_wal_replay_pause()")
            change()
            after = question(db)
            assert after != before
            said = Said()
            assert reading(None, work, said, patience=0.2) == ("primary", after)
            assert re.fullmatch(behind, said.all)
            with monkeypatch.context() as patch:  # without a primary to compare it with
                patch.setenv("DATABASE_URL", AWAY)
                assert reading(None, work, Said()) == ("replica", before)
            # The read waits for the replica, and no longer than necessary.
            resume = threading.Timer(0.2, standby.execute, ["select pg_wal_replay_resume()"])
            resume.start()
            said = Said()
            assert reading(None, work, said, patience=30) == ("replica", after)
            assert said.lines == []
            resume.join()


def test_the_page_shows_the_like_that_was_just_made(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    likes = session.ask_anew(queries.taste, ME)["likes"]
    assert caplog.messages == []
    free = next(v for v in reversed(WORLD.videos) if v not in WORLD.decided(ME))
    with pair.on_standby() as standby:
        standby.execute("select pg_wal_replay_pause()")
        actions.decide(pair.primary.dsn, ME, free, "like")
        assert session.ask_anew(queries.taste, ME)["likes"] == likes + 1
        assert "the replica is behind: " in caplog.text
        standby.execute("select pg_wal_replay_resume()")
    caplog.clear()
    assert session.ask_anew(queries.taste, ME)["likes"] == likes + 1
    assert caplog.messages == []


def test_a_replica_has_caught_up_at_the_end_of_a_wal_segment(pair: Pair) -> None:
    with pair.on_primary() as db:
        db.execute("select pg_switch_wal()")
        said = Said()
        assert reading(None, who, said, patience=5) == "replica"
        assert said.lines == []


def test_a_conflict_with_replay_is_tried_again(pair: Pair) -> None:
    with pair.on_primary() as db, pair.on_standby() as standby:
        db.execute("create table public.conflicts as select n from generate_series(1, 1000) n")
        standby.execute("alter system set max_standby_streaming_delay = 0")
        standby.execute("select pg_reload_conf()")
        attempts = []

        def work(connection: Connection) -> tuple[str, int]:
            attempts.append(who(connection))
            with connection.transaction():
                connection.execute("set transaction isolation level repeatable read, read only")
                count = int(one(connection, "select count(*) from public.conflicts"))
                if len(attempts) == 1:
                    db.execute("delete from public.conflicts")
                    db.execute("vacuum public.conflicts")
                    connection.execute("select pg_sleep(30)")
            return attempts[-1], count

        said = Said()
        try:
            assert reading(None, work, said, autocommit=True) == ("replica", 0)
        finally:
            standby.execute("alter system reset max_standby_streaming_delay")
            standby.execute("select pg_reload_conf()")
        # The session is terminated if it is idle at that moment.
        ended = "(canceling statement|terminating connection) due to conflict with recovery"
        assert re.fullmatch(f"warning: the replica broke off: {ended}; trying again", said.all)
        db.execute("drop table public.conflicts")


def test_transient_errors_are_retried_three_times_then_sent_to_the_primary(pair: Pair) -> None:
    attempts: list[str] = []

    def work(connection: Connection) -> str:
        attempts.append(who(connection))
        if attempts[-1] == "replica":
            connection.execute(f"do $$ begin raise exception 'as told' using errcode = '{state}'; end $$".encode())
        return attempts[-1]

    for state in sorted({*PASSING, "08006", "08P01"}):
        attempts.clear()
        said = Said()
        assert reading(None, work, said) == "primary", state
        assert attempts == [*["replica"] * 3, "primary"], state
        assert said.lines == [
            *["warning: the replica broke off: as told; trying again"] * 2,
            "warning: the replica broke off: as told; the primary answers",
        ]
    for state in ("22012", "42P01", "42501", "P0002", "25006", "57014", "TT003"):
        attempts.clear()
        with pytest.raises(psycopg.Error, match="as told") as caught:
            reading(None, work, Said())
        assert (caught.value.sqlstate, attempts) == (state, ["replica"])


def test_a_terminated_session_is_retried(pair: Pair) -> None:
    attempts = []

    def work(connection: Connection) -> str:
        attempts.append(who(connection))
        if len(attempts) == 1:
            with pair.on_standby() as other:
                other.execute("select pg_terminate_backend(%s)", (connection.info.backend_pid,))
            connection.execute("select pg_sleep(10)")
        return attempts[-1]

    said = Said()
    assert reading(None, work, said) == "replica"
    assert "terminating connection due to administrator command; trying again" in said.all


# ------------------------------------------------------------------------------------------------ verbs

VERBS: dict[str, list[str]] = {
    "model list": ["model", "list", "--json"],
    "model export": ["model", "export", "model"],
    "model publish": ["model", "publish", "file://{}/store", "--with-users"],
    "recommend": ["recommend", "--all", "--output", "recs.csv", "--workers", "1"],
    "dataset export": ["dataset", "export", "data"],
    "evaluate": ["evaluate", "v1"],
    "replay": ["replay", "v1"],
    "user-data": ["user-data", str(ME)],
    "ab status": ["ab", "status", "--json"],
    "verify": ["verify", "--sample", "20"],
}
"""All verbs that only read."""


@dataclass
class Statements:
    """Counts a verb's statements on the replica, and strikes before one of them."""

    strike: Callable[[], None] = lambda: None
    before: int = 0
    count: int = 0

    def next(self) -> None:
        self.count += 1
        if self.count == self.before:
            self.strike()


@pytest.fixture
def statements(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Statements:
    counted = Statements()

    class Cursor(psycopg.Cursor[Any]):
        def execute(self, *arguments: Any, **options: Any) -> Any:
            counted.next()
            return super().execute(*arguments, **options)

        def copy(self, *arguments: Any, **options: Any) -> Any:
            counted.next()
            return super().copy(*arguments, **options)

    def watched(dsn: str | None = None, **options: Any) -> Connection:
        connection = connect(dsn, **options)
        if who(connection) == "replica":
            connection.cursor_factory = Cursor
        connection.rollback()
        return connection

    monkeypatch.setattr(reading_module, "connect", watched)
    return counted


def run(directory: Path, verb: str, *options: str) -> tuple[int, str]:
    """Exit code and output of a verb."""
    done = CliRunner().invoke(app, [word.format(directory) for word in (*VERBS[verb], *options)])
    assert done.exception is None or isinstance(done.exception, SystemExit), (verb, done.exc_info)
    return done.exit_code, done.output


@pytest.mark.sampled(2)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_finishes_on_the_primary_if_the_replica_is_killed(
    verb: str, pair: Pair, statements: Statements, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "first")
    code, output = run(tmp_path / "first", verb)
    assert statements.count > 0, output
    assert "warning" not in output
    statements.before, statements.count = (statements.count + 1) // 2, 0
    statements.strike = lambda: kill(pair.standby)
    monkeypatch.chdir(tmp_path / "second")
    again, told = run(tmp_path / "second", verb)
    assert again == code, told
    assert "warning: the replica broke off: " in told
    assert "warning: the replica does not answer: " in told
    assert files(tmp_path / "first") == files(tmp_path / "second")


def files(directory: Path) -> set[str]:
    """Names of the files there, without times."""
    return {
        re.sub(r"\d{8}T\d{6}Z(\.\d+)?", "TIME", str(path.relative_to(directory)))
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_every_verb_that_only_reads_uses_the_replica() -> None:
    """By the sources, so that a new one must be in the test above."""
    directory = Path(reading_module.__file__).parents[1] / "cli"
    calls = sum(len(re.findall(r"\breading\(", path.read_text())) for path in directory.glob("*.py"))
    assert calls == len(VERBS)


# ------------------------------------------------------------------------------------------------ promotion


@pytest.fixture
def heir(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """One more standby, in DATABASE_READ_URL."""
    server = standby_of(pair.primary)
    try:
        server.start()
        monkeypatch.setenv("DATABASE_READ_URL", server.dsn)
        yield server
    finally:
        remove_server(server)


def take_over(heir: Server) -> None:
    """The standby is promoted, and what is being read there is changed and vacuumed."""
    with psycopg.connect(heir.dsn, autocommit=True) as db:
        assert one(db, "select pg_promote()")
        db.execute("delete from public.user_video_decisions where decision_type = 'like'")
        db.execute("delete from public.videos where id = %s", (WORLD.published[0],))
        refresh(db)
        db.execute("vacuum")
        assert_fresh(db)


def content(path: Path) -> object:
    return pl.read_parquet(path).to_dicts() if path.suffix == ".parquet" else path.read_bytes()


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "verb", [("recommend",), ("recommend", "--workers", "2"), ("dataset export",), ("model export",)], ids=" ".join
)
def test_a_verb_that_reads_goes_on_while_its_standby_is_promoted(
    verb: tuple[str, ...],
    pair: Pair,
    heir: Server,
    statements: Statements,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All that it writes is of the moment at which it began. The promotion comes before its last statement."""
    written = []
    for name in ("before", "during"):
        directory = tmp_path / name
        directory.mkdir()
        monkeypatch.chdir(directory)
        statements.before, statements.count = statements.count, 0
        if name == "during":
            statements.strike = lambda: take_over(heir)
        code, told = run(directory, *verb)
        assert (code, "warning" in told) == (0, False), told
        found = {p.relative_to(directory): content(p) for p in directory.rglob("*") if p.suffix in (".csv", ".parquet")}
        written.append({re.sub(r"\d{8}T\d{6}Z", "TIME", str(path)): it for path, it in found.items()})
    with psycopg.connect(heir.dsn) as db:
        assert not one(db, "select pg_is_in_recovery()")
    assert written[0]
    assert written[0].keys() == written[1].keys()
    for path, it in written[0].items():
        assert written[1][path] == it, path


@pytest.mark.soak
@pytest.mark.parametrize("ended", [False, True])
def test_rows_that_are_being_sent_go_on_or_are_read_again_while_their_standby_is_promoted(
    ended: bool, pair: Pair, heir: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are more than fit into the buffers between server and client. The session may be ended, too."""
    with pair.on_primary() as db:
        many, likes = rows.row(
            db, "select count(*), count(*) filter (where decision_type = 'like') from public.user_video_decisions"
        )
    assert many * 20_000 > 10_000_000
    attempts = []

    def work(connection: Connection) -> int:
        attempts.append(who(connection))
        query = "copy (select user_id, repeat('x', 20000) from public.user_video_decisions) to stdout"
        with connection.cursor().copy(query) as copy:
            for at, _ in enumerate(copy.rows()):
                if at == 1 and len(attempts) == 1:
                    monkeypatch.setenv("DATABASE_URL", AWAY)  # the old primary is gone
                    take_over(heir)
                    if ended:
                        with psycopg.connect(heir.dsn) as db:
                            db.execute("select pg_terminate_backend(%s)", (connection.info.backend_pid,))
        return at + 1

    said = Said()
    found = reading(None, work, said)
    if ended:
        assert (found < many - likes + 1, attempts) == (True, ["replica", "primary"])
        assert "trying again" in said.lines[0]
        assert "the primary does not answer" in said.lines[1]
    else:
        assert (found, attempts, said.lines) == (many, ["replica"], [])


def test_a_promotion_during_writes_loses_nothing(pair: Pair) -> None:
    """Last in this module, since it leaves another primary, with all likes that the old one acknowledged."""
    videos, users = WORLD.published, WORLD.users[5:25]
    promised: list[tuple[UUID, UUID]] = []
    stop = threading.Event()
    like = """insert into public.user_video_decisions (user_id, video_id, decision_type) values (%s, %s, 'like')
        on conflict (user_id, video_id) do update set decision_type = excluded.decision_type"""

    def write() -> None:
        with suppress(psycopg.Error), pair.on_primary() as db:
            for video in videos:
                for user in users:
                    if stop.is_set():
                        return
                    db.execute(like, (user, video))
                    promised.append((user, video))

    def keep_fresh() -> None:
        with suppress(psycopg.Error), pair.on_primary() as db:
            while not stop.is_set():
                refresh(db)

    with pair.on_primary() as db:
        db.execute("alter system set synchronous_standby_names = '*'")
        db.execute("select pg_reload_conf()")
        until(lambda: one(db, "select count(*) from pg_stat_replication where sync_state = 'sync'") == 1)
    threads = [threading.Thread(target=work) for work in (write, keep_fresh)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(promised) > 50)
        with pair.on_standby() as standby:
            standby.execute("select pg_wal_replay_pause()")
            known = len(promised)
            until(lambda: len(promised) > known + 50)
            kill(pair.primary)
            standby.execute("select pg_promote(false)")
            until(lambda: not one(standby, "select pg_is_in_recovery()"))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    with pair.on_standby() as db:
        likes = "select user_id, video_id from public.user_video_decisions where decision_type = 'like'"
        assert set(promised) <= set(db.execute(likes))
        refresh(db)
        assert_fresh(db)
        db.execute("select set_config('request.jwt.claims', %s, false)", (json.dumps({"sub": str(users[0])}),))
        assert one(db, "select public.embed_user() ->> 'success'") == "true"
    # The old one returns, unaware of the new one.
    pair.primary.start()
    with pytest.raises(UserError, match="lead to two servers that both take writes: a standby was promoted"):
        reading(None, who, Said())
