"""What somebody set on the database or on a role changes nothing of what we do or store.

Each database has odd defaults. There, everything of the daily flow is done, by the command line and by SQL as clients
have it, and what is stored then is compared with what the same flow stores under PostgreSQL's own defaults.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from typer.testing import CliRunner

from conftest import NewDatabase, in_database
from two_tower.cli.main import app
from two_tower.database import open_connection, without_password
from two_tower.errors import UserError
from two_tower.lifecycle import artifacts
from two_tower.server.embedded import Server
from world_fixtures import Client, column, make_world, one, rpc

WORLD = make_world()
ME = WORLD.usual

# Settings of one case do not touch on each other; those that once broke something, or could, have a case of their own.
CASES: dict[str, list[str]] = {
    "how values are written and read": [
        "datestyle = 'German, DMY'", "intervalstyle = 'iso_8601'", "bytea_output = 'escape'",
        "extra_float_digits = -15", "timezone = 'America/St_Johns'", "quote_all_identifiers = on", "array_nulls = off",
        "transform_null_equals = on", "backslash_quote = off", "synchronous_commit = off",
        "check_function_bodies = off",
    ],
    "dates by month": ["datestyle = 'SQL, MDY'", "intervalstyle = 'sql_standard'", "timezone = 'Asia/Tokyo'"],
    "old strings": ["standard_conforming_strings = off", "escape_string_warning = off"],
    "no path": ["search_path = ''"],
    "a path that leads nowhere": ["search_path = 'nowhere'"],
    "Japanese": ["client_encoding = 'SJIS'"],
    "Latin": ["client_encoding = 'LATIN1'"],
    "row security": ["row_security = off"],
    "serializable": ["default_transaction_isolation = 'serializable'", "default_transaction_deferrable = on"],
    "repeatable read": ["default_transaction_isolation = 'repeatable read'"],
    "read only": ["default_transaction_read_only = on", "default_transaction_deferrable = on"],
    "limits": ["statement_timeout = '250ms'", "lock_timeout = '1ms'", "idle_in_transaction_session_timeout = '1ms'"],
    "ambiguous names are columns": ["plpgsql.variable_conflict = 'use_column'"],
    "strict plpgsql": ["plpgsql.extra_errors = 'all'", "plpgsql.check_asserts = off"],
    "plans": [
        "work_mem = '64kB'", "plan_cache_mode = 'force_custom_plan'", "temp_buffers = '800kB'",
        "default_toast_compression = 'pglz'", "enable_hashjoin = off",
    ],
    "parallel plans": [
        "jit = on", "force_parallel_mode = on", "parallel_setup_cost = 0", "min_parallel_table_scan_size = 0",
    ],
}  # fmt: skip

# The flow takes seconds, so that each run puts cases together that set different things; alone, `make soak` tries them.
# Parallel plans, which start workers for every statement, take four times as long as all others.
SOAK_ALONE = ("parallel plans",)
TOGETHER = [
    ("how values are written and read", "old strings", "no path", "Japanese", "serializable", "strict plpgsql"),
    (
        "dates by month", "a path that leads nowhere", "Latin", "row security", "repeatable read", "plans",
        "ambiguous names are columns", "read only", "limits",
    ),
]  # fmt: skip

CATALOG = (
    "product_url,title,released_at,price,tags\n"
    "https://shop.example/b1,Größe 日本 😀 \\n,03.02.2025,12.5,neu|日本\n"
    f"https://videos.example/{WORLD.videos.index(WORLD.published[7])},another title,2025-02-03,0.1,neu\n"
)
REVIEWS = "reviewer_id,product_url,stars,created_at\nr1,https://shop.example/b1,4.5,2025-02-03T00:30:00+09:00\n"
DECISIONS = "user_id,product_url,decision,created_at\nnewbie,https://shop.example/b1,like,2026-06-01T00:00:00Z\n"

# A limit ends what takes longer, as it should; who calls SQL by himself sets it aside by himself.
UNLIMITED = "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0"

# Everything that the flow writes, but for times of the clock and numbers by which rows happened to be made.
STORED = {
    "videos": "select to_jsonb(v) - 'created_at' - 'published_at' from public.videos v order by v.id",
    "tags": "select to_jsonb(t) from public.tags t order by t.name",
    "video_tags": "select to_jsonb(t) from public.video_tags t order by t.video_id, t.tag_id",
    "decisions": "select jsonb_build_array(user_id, video_id, decision_type, "
    "case when created_at < now() - interval '1 day' then created_at end) "
    "from public.user_video_decisions order by user_id, video_id",
    "reviews": "select to_jsonb(r) from two_tower.reviews r order by r.reviewer_id, r.video_id",
    "features": "select to_jsonb(f) - 'updated_at' - 'liked_video_ids' from public.user_features f order by f.user_id",
    "users": "select jsonb_build_array(model_version, user_id, embedding::text) "
    "from two_tower.user_embeddings order by model_version, user_id",
    "video vectors": "select jsonb_build_array(model_version, video_id, embedding::text) "
    "from two_tower.video_embeddings order by model_version, video_id",
    "tastes": "select jsonb_build_array(model_version, video_id, liked::text, noped::text) "
    "from two_tower.video_tastes order by model_version, video_id",
    "models": "select jsonb_build_array(version, state, forced) from two_tower.models order by version",
    "pending": "select to_jsonb(user_id) from two_tower.pending_users union all "
    "select to_jsonb(video_id) from two_tower.video_changes",
    "failures": "select jsonb_build_array(kind, id, error) from two_tower.change_failures",
}


@pytest.fixture(scope="module")
def exported(cluster: Server, world_template: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the world's model."""
    directory = tmp_path_factory.mktemp("model")
    with psycopg.connect(in_database(cluster.dsn, world_template), autocommit=True) as db:
        artifacts.export(db, "v1", directory)
    return directory


class Flow:
    """The daily flow on a database, in one directory."""

    def __init__(self, dsn: str, directory: Path, model: Path) -> None:
        self.dsn, self.directory, self.model = dsn, directory, model
        self.runner = CliRunner()
        self.answers: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        for name, text in (("catalog", CATALOG), ("reviews", REVIEWS), ("decisions", DECISIONS)):
            file = self.directory / f"{name}.csv"
            file.write_text(text, encoding="utf-8")
            self.verb("import", name, str(file), *(["--create-users"] if name == "decisions" else []))
        self.scheduler("call two_tower.refresh()", "select two_tower.sync_user_embeddings('99 years')")
        self.client()
        self.verb("refresh", "--recent", "2 hours")
        recommended = self.directory / "recommended.csv"
        self.verb("recommend", "--all", "--limit", "2", "--output", str(recommended))
        self.answers["recommended"] = recommended.read_text()
        self.verb("status", "--sample", "5", codes={0, 1})
        self.verb("model", "register", str(self.model), "--version", "v2")
        self.verb("model", "activate", "v2", "--force")
        self.verb("model", "rollback")
        self.verb("model", "export", str(self.directory / "exported"))
        files = {p.name: p.read_bytes() for p in sorted((self.directory / "exported").glob("*.parquet"))}
        self.answers["exported"] = files
        self.verb("migrate")
        self.scheduler("call two_tower.backfill_model('v2')", "call two_tower.rebuild()", "call two_tower.refresh()")
        return self.answers | self.stored()

    def verb(self, *words: str, codes: frozenset[int] | set[int] = frozenset({0})) -> None:
        result = self.runner.invoke(app, [*words, "--dsn", self.dsn])
        assert result.exit_code in codes, (words, result.stderr, result.exception)
        assert result.exception is None or isinstance(result.exception, SystemExit)

    def scheduler(self, *statements: str) -> None:
        """As pg_cron and psql have it: statements of their own, under the defaults of the database."""
        with psycopg.connect(self.dsn, autocommit=True, prepare_threshold=None, options=UNLIMITED) as db:
            for statement in statements:
                if statement.startswith("select") and one(db, "show default_transaction_read_only") == "on":
                    continue  # a function cannot write then, whatever it says
                db.execute(statement.encode())

    def client(self) -> None:
        """As PostgREST has it: BEGIN says what the transaction is, whatever the default."""
        name = urlsplit(self.dsn).path.removeprefix("/")
        dsn = in_database(self.dsn, name, "authenticator")
        with psycopg.connect(dsn, client_encoding="UTF8", options=UNLIMITED) as connection:
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            connection.read_only = False
            client = Client(connection)
            with client.as_("authenticated", ME) as asked:
                # Where this is off, every statement of a client on a table with policies is an error; routines are not.
                row_security = one(asked, "show row_security")
                asked.execute("set local row_security = on")
                asked.execute(
                    "insert into public.user_video_decisions (user_id, video_id, decision_type) values (%s, %s, 'like')"
                    " on conflict (user_id, video_id) do update set decision_type = 'like'",
                    (ME, WORLD.published[5]),
                )
                asked.execute("select set_config('row_security', %s, true)", (row_security,))
                self.answers["embed_user"] = rpc(asked, "embed_user")
                self.answers["recommend_videos"] = self.listed(rpc(asked, "recommend_videos", limit=5, diversity=0.3))
                self.answers["own features"] = rpc(asked, "get_user_embedding_features", user_id=str(ME))
                self.answers["features"] = rpc(asked, "get_item_embedding_features", video_id=str(WORLD.videos[5]))
                (counted,) = rpc(asked, "update_user_features", p_user_id=str(ME))
                self.answers["counted"] = {k: v for k, v in counted.items() if k not in ("updated_at", "price_sum")}
            with client.as_("anon") as asked:
                similar = rpc(asked, "similar_videos", video_id=str(WORLD.published[3]), limit=3)
                self.answers["similar_videos"] = self.listed(similar)

    @staticmethod
    def listed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows without scores: with how many digits they are printed is the session's to say."""
        return [{name: value for name, value in row.items() if name != "score"} for row in rows]

    def stored(self) -> dict[str, Any]:
        with open_connection(self.dsn, autocommit=True) as db:
            return {name: column(db, query) for name, query in STORED.items()}


def prepared(dsn: str, settings: list[str]) -> str:
    name = urlsplit(dsn).path.removeprefix("/")
    with psycopg.connect(dsn, autocommit=True) as db:
        for setting in settings:
            db.execute("load 'plpgsql'")
            db.execute(f"alter database {name} set {setting}".encode())
    return dsn


@pytest.fixture(scope="module")
def expected(
    cluster: Server, world_template: str, exported: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """What the flow answers and stores under PostgreSQL's own defaults."""
    name = f"session_defaults_{tmp_path_factory.getbasetemp().name.replace('-', '_')}"
    with psycopg.connect(cluster.dsn, autocommit=True) as admin:
        admin.execute(f"create database {name} template {world_template}".encode())
    yield Flow(in_database(cluster.dsn, name), tmp_path_factory.mktemp("flow"), exported).run()
    with psycopg.connect(cluster.dsn, autocommit=True) as admin:
        admin.execute(f"drop database {name} with (force)".encode())


def test_every_case_is_in_one_database_and_nothing_is_set_twice_there() -> None:
    assert sorted([*SOAK_ALONE, *(case for cases in TOGETHER for case in cases)]) == sorted(CASES)
    for cases in TOGETHER:
        names = [setting.split(" = ")[0] for case in cases for setting in CASES[case]]
        assert len(names) == len(set(names)), cases


@pytest.mark.parametrize(
    "cases", [*TOGETHER, *(pytest.param((case,), marks=pytest.mark.soak) for case in CASES)], ids=" and ".join
)
def test_defaults_change_nothing(
    cases: tuple[str, ...],
    database: NewDatabase,
    world_template: str,
    exported: Path,
    expected: dict[str, Any],
    tmp_path: Path,
) -> None:
    dsn = prepared(database(template=world_template), [setting for case in cases for setting in CASES[case]])
    found = Flow(dsn, tmp_path, exported).run()
    for name, value in expected.items():
        assert found[name] == value, name
    assert found["failures"] == found["pending"] == []


def test_what_the_connection_string_asks_for_stays(dsn: str) -> None:
    prepared(dsn, ["statement_timeout = '8s'", "lock_timeout = '3s'"])
    with open_connection(make_conninfo(dsn, options="-c statement_timeout=77s")) as connection:
        assert one(connection, "show statement_timeout") == "77s"
        assert one(connection, "show lock_timeout") == "0"
        assert one(connection, "show client_encoding") == "UTF8"


@pytest.mark.parametrize(
    ("setting", "refused"),
    [
        ("statement_timeout = '8s'", False),
        ("timezone = 'Asia/Tokyo'", False),
        ("datestyle = 'ISO, DMY'", False),
        ("datestyle = 'German'", True),
        ("default_transaction_isolation = 'serializable'", True),
        ("default_transaction_read_only = on", True),
        ("extra_float_digits = 0", True),
    ],
)
def test_behind_a_pooler_nothing_is_set(setting: str, refused: bool, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SET would reach others there. PgBouncer and Supavisor tell their clients of a process that is none."""
    prepared(dsn, [setting])
    monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", property(lambda _: 0))
    name = setting.split(" = ")[0]
    if refused:
        with pytest.raises(UserError, match=f"(?i){name} = .* connection pooler"):
            open_connection(dsn)
        return
    with open_connection(dsn) as connection:
        assert one(connection, "select source from pg_settings where lower(name) = %s", name) == "database"


def test_no_limit_on_idle_transactions_ends_one_before_it_is_set_aside(
    database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server waits for us for longer than the limit before each of the first messages."""
    ours, theirs = (prepared(database(), ["idle_in_transaction_session_timeout = '1ms'"]) for _ in range(2))
    wait = psycopg.Connection.wait
    pauses: Iterator[float] = iter(())

    def waited(self: psycopg.Connection[Any], *arguments: Any, **options: Any) -> Any:
        time.sleep(next(pauses, 0))
        return wait(self, *arguments, **options)

    monkeypatch.setattr(psycopg.Connection, "wait", waited)
    # As behind a pooler, where limits can be set aside for a transaction alone.
    monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", property(lambda _: 0))
    for verb in (["migrate"], ["migrate", "--check"], ["pull", "--from", theirs]):
        pauses = iter([0.05] * 20)
        result = CliRunner().invoke(app, [*verb, "--dsn", ours])
        assert result.exit_code == 0, (verb, result.stderr, result.exception)
        assert next(pauses, None) is None, verb


def test_connections_notice_a_silent_host_unless_the_dsn_says_otherwise(
    dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`keepalives_interval` is a default throughout."""
    (tmp_path / "services").write_text("[patient]\nconnect_timeout=60\nkeepalives_idle=50\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    for environment, more, wanted in (
        ("", "", ("15", "30", "10")),
        ("7", "", ("7", "30", "10")),
        ("7", "&connect_timeout=9&keepalives_idle=20", ("9", "20", "10")),
        ("", "&connect_timeout=0", ("0", "30", "10")),
        ("7", "&service=patient", ("60", "50", "10")),
        ("7", "&service=patient&keepalives_idle=20", ("60", "20", "10")),
    ):
        monkeypatch.setenv("PGCONNECT_TIMEOUT", environment)
        with open_connection(dsn + more) as connection:
            used = {option.keyword.decode(): (option.val or b"").decode() for option in connection.pgconn.info}
        names = ("connect_timeout", "keepalives_idle", "keepalives_interval")
        assert tuple(used[name] for name in names) == wanted, (environment, more)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:se%20cret@db.internal:5433/app?sslmode=require&sslpassword=secret",
        "postgresql://me@db.internal:5433/app?sslmode=require&password=secret",
        "host=db.internal port=5433 dbname=app user=me sslmode=require password='se cret'",
    ],
)
def test_a_connection_string_is_shown_without_its_secrets(dsn: str) -> None:
    shown = {"host": "db.internal", "port": "5433", "dbname": "app", "user": "me", "sslmode": "require"}
    assert conninfo_to_dict(without_password(dsn)) == shown


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
@pytest.mark.parametrize("call", ["embed_user", "update_user_features"])
def test_a_snapshot_older_than_a_refresh_restores_nothing_old(
    call: str, level: psycopg.IsolationLevel, database: NewDatabase, world_template: str
) -> None:
    dsn = database(template=world_template)
    with psycopg.connect(dsn, autocommit=True) as db, psycopg.connect(dsn) as asked:
        asked.isolation_level = level
        with asked.transaction():
            asked.execute("select set_config('request.jwt.claims', %s, true)", (json.dumps({"sub": str(ME)}),))
            assert one(asked, "select count(*) from public.user_video_decisions where user_id = %s", ME)
            db.execute("delete from public.user_video_decisions where user_id = %s", (ME,))
            db.execute("call two_tower.refresh()")
            asked.execute(f"select public.{call}({'' if call == 'embed_user' else repr(str(ME))})".encode())
        db.execute("call two_tower.refresh()")
        for table in ("public.user_features", "two_tower.user_embeddings", "two_tower.pending_users"):
            assert one(db, f"select count(*) from {table} where user_id = %s", ME) == 0, table
