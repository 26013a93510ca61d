"""The embedded server: up, down, psql, and doctor, and typical accidents on people's machines."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from conftest import Connection, NewDatabase, in_database
from two_tower.errors import UserError
from two_tower.paths import DATABASE_FILES
from two_tower.server import doctor
from two_tower.server.connection import resolve_dsn
from two_tower.server.embedded import Server
from two_tower.server.installation import Installation
from two_tower.server.resources import resources

NewServer = Callable[..., Server]
COMMAND = Path(sys.executable).parent / "two-tower"


def two_tower(*words: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    base = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "COLUMNS"}}
    return subprocess.run(
        [COMMAND, *words], cwd=cwd, env=base | env, capture_output=True, text=True, check=False, timeout=120
    )


def one(dsn: str, query: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def socket_path(server: Server) -> Path:
    query = parse_qs(urlsplit(server.dsn).query)
    return Path(query["host"][0]) / f".s.PGSQL.{query['port'][0]}"


def await_stop(server: Server) -> None:
    deadline = time.monotonic() + 30
    while server.running:
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ------------------------------------------------------------------------------------------------ its life


def test_up_creates_and_starts_a_server_and_prints_its_dsn(new_server: NewServer) -> None:
    directory = new_server().directory
    first = two_tower("up", cwd=directory)
    assert first.returncode == 0, first.stderr
    assert one(first.stdout.strip(), "select current_database()::text") == "two_tower"
    assert "creating" in first.stderr

    again = two_tower("up", "--json", cwd=directory)
    answer = json.loads(again.stdout)
    assert answer["dsn"] == first.stdout.strip()
    assert again.stderr == ""
    assert answer["version"] in range(15, 19)


def test_only_the_owner_may_create_temporary_objects(new_server: NewServer) -> None:
    dsn = new_server().start()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create temp table of_the_owner ()")
        connection.execute("create role visitor")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set role visitor")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="temporary tables"):
            connection.execute("create temp table of_the_visitor ()")


def test_down_stops_the_server_and_can_be_repeated(new_server: NewServer) -> None:
    server = new_server(with_cluster=True)
    server.start()
    for said in ("stopped", "not running"):
        result = two_tower("down", cwd=server.directory)
        assert (result.returncode, result.stderr.strip()) == (0, said)
    assert not server.running


def test_down_without_a_server_creates_nothing(tmp_path: Path) -> None:
    assert two_tower("down", cwd=tmp_path).returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.soak
def test_data_outlive_a_restart(new_server: NewServer) -> None:
    server = new_server(durable=True)
    with psycopg.connect(server.start(), autocommit=True) as connection:
        connection.execute("create table kept as select 42 as answer")
    assert server.stop()
    assert not server.running
    assert one(server.start(), "select answer from kept") == 42


@pytest.mark.soak
def test_twenty_concurrent_starts_make_one_server(new_server: NewServer) -> None:
    directory = new_server().directory
    with ThreadPoolExecutor(20) as pool:
        dsns = set(pool.map(lambda _: Server(directory, durable=False).start(), range(20)))
    assert len(dsns) == 1
    assert one(dsns.pop(), "select 1") == 1


def test_a_live_server_is_found_under_any_name_of_its_directory(tmp_path: Path) -> None:
    """Started in another mount namespace, as in a chroot, where the directory has another name."""
    server = Server(tmp_path / "project")
    other = tmp_path / "other"
    other.mkdir()
    server.data.mkdir(parents=True)
    script = 'mount --bind "$1" "$2" && cd "$2" && echo ready && exec sleep 60'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(server.data), str(other)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        if process.stdout.readline() != "ready\n":
            pytest.skip(f"cannot mount here: {process.stderr.read()}")
        (server.data / "postmaster.pid").write_text(f"{process.pid}\n")
        found = server.running
        process.kill()
    assert found
    assert not server.running


def test_the_server_starts_after_kill_9(new_server: NewServer) -> None:
    server = new_server(with_cluster=True)
    server.start()
    pid = server._postmaster()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await_stop(server)
    assert (server.data / "postmaster.pid").exists()
    assert one(server.start(), "select 1") == 1


@pytest.mark.soak
def test_a_pid_file_with_another_processs_pid_is_ignored(new_server: NewServer) -> None:
    server = new_server(with_cluster=True)
    server.start()
    lines = (server.data / "postmaster.pid").read_text().splitlines()
    server.stop()
    account = server._account()
    with subprocess.Popen(["sleep", "60"], user=account.uid if account else None) as stranger:
        lines[0] = str(stranger.pid)
        (server.data / "postmaster.pid").write_text("\n".join(lines) + "\n")
        assert not server.running
        assert one(server.start(), "select 1") == 1
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.soak
def test_a_damaged_pid_file_does_not_prevent_a_start(new_server: NewServer) -> None:
    server = new_server(with_cluster=True)
    for content in ("", "\n", "not a pid\n", "99999999\n"):
        server.start()
        server.stop()
        (server.data / "postmaster.pid").write_text(content)
        assert not server.running, content
        assert one(server.start(), "select 1") == 1, content


@pytest.mark.soak
def test_an_interrupted_creation_starts_over(new_server: NewServer) -> None:
    server = new_server()
    (server.directory / ".two-tower" / "data.new" / "base").mkdir(parents=True)
    assert one(server.start(), "select 1") == 1


def test_a_server_that_cannot_start_says_why(new_server: NewServer) -> None:
    server = new_server(with_cluster=True)
    server.start()
    server.stop()
    with (server.data / "postgresql.auto.conf").open("a") as conf:
        conf.write("shared_buffers = 'plenty'\n")
    with pytest.raises(UserError, match="shared_buffers") as error:
        server.start()
    assert str(server.log) in str(error.value)


# ------------------------------------------------------------------------------------------------ directories


@pytest.mark.soak
def test_the_socket_of_a_long_path_moves_to_a_short_private_one(new_server: NewServer) -> None:
    server = new_server("d" * 60 + "/" + "e" * 60)
    assert one(server.start(), "select 1") == 1
    path = socket_path(server)
    assert len(os.fsencode(path)) <= 107
    assert path.parent.stat().st_mode & 0o077 == 0
    server.stop()
    assert not path.parent.exists()


ODD = ["with space", "comma,comma", "it's", 'quo"te', "per%cent", "ünïcode", "#hash?", "$HOME`id`"]


@pytest.mark.parametrize(
    "name", [" ".join(ODD[:4]), "".join(ODD[4:]), *(pytest.param(name, marks=pytest.mark.soak) for name in ODD)]
)
def test_directories_may_have_unusual_names(new_server: NewServer, name: str) -> None:
    server = new_server(name)
    assert one(server.start(), "select 1") == 1


def test_the_server_is_not_root_and_only_its_user_reaches_the_socket(new_server: NewServer) -> None:
    server = new_server(with_cluster=True)
    server.start()
    pid = server._postmaster()
    assert Path(f"/proc/{pid}").stat().st_uid != 0
    assert server.data.stat().st_mode & 0o077 == 0
    assert socket_path(server).parent.stat().st_mode & 0o077 == 0


def test_a_directory_closed_to_the_servers_user_works(new_server: NewServer) -> None:
    server = new_server("closed")
    directory = server.directory
    directory.chmod(0o700)
    assert one(server.start(), "select 1") == 1
    assert (directory / ".two-tower").is_symlink() == (os.geteuid() == 0)
    assert Server(directory).dsn == server.dsn


def test_a_port_opens_tcp_with_a_password(new_server: NewServer) -> None:
    server = new_server(with_cluster=True)
    port = 20000 + os.getpid() % 20000
    server.start(port)
    tcp = server.tcp_dsn
    assert tcp is not None
    assert one(tcp, "select host(inet_server_addr())") == "127.0.0.1"
    without = f"postgresql://postgres@127.0.0.1:{port}/two_tower"
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(without)
    assert server.start(port) == server.dsn
    with pytest.raises(UserError, match="running without port"):
        server.start(port + 1)


@pytest.mark.soak
def test_the_server_does_not_inherit_the_callers_environment(new_server: NewServer) -> None:
    server = new_server(with_cluster=True)
    assert two_tower("up", cwd=server.directory, AWS_SECRET_ACCESS_KEY="hush").returncode == 0
    environ = Path(f"/proc/{server._postmaster()}/environ").read_text()
    assert "hush" not in environ
    assert "PYTHONPATH" in environ


def test_pg_cron_is_loaded_and_runs_jobs_without_a_password(new_server: NewServer) -> None:
    server = new_server(with_cluster=True)
    with psycopg.connect(server.start(), autocommit=True) as connection:
        connection.execute("create extension pg_cron")
        shown = connection.execute(
            "select current_setting('cron.database_name'), current_setting('cron.use_background_workers')"
        ).fetchone()
        assert shown == ("two_tower", "on")
        assert connection.execute("select cron.schedule('probe', '* * * * *', 'select 1')").fetchone() == (1,)


@pytest.mark.parametrize("durable", [True, False])
def test_resources_are_within_sensible_limits(durable: bool) -> None:
    settings = resources(durable)
    assert 64 <= int(settings["maintenance_work_mem"].removesuffix("MB")) <= 1024
    assert 128 <= int(settings["shared_buffers"].removesuffix("MB")) <= 4096


# ------------------------------------------------------------------------------------------------ missing values


def test_a_missing_postgresql_is_named_with_its_remedy(tmp_path: Path) -> None:
    result = two_tower("up", cwd=tmp_path, TWO_TOWER_PG_BINDIR=str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert result.returncode == 1
    assert "is not installed" in result.stderr
    assert "make setup" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_extension_names_the_remedy(new_server: NewServer, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Installation(Path("/nowhere"), 16, frozenset({"plpgsql", "plpython3u"}), "3.11")
    monkeypatch.setattr("two_tower.server.embedded.installations", lambda: [bare])
    with pytest.raises(UserError, match=r"lacks extension vector.*\n.*make setup"):
        new_server().start()


@pytest.mark.soak
def test_a_cluster_of_a_missing_version_is_an_error(new_server: NewServer) -> None:
    server = new_server(with_cluster=True)
    server.start()
    server.stop()
    (server.data / "PG_VERSION").write_text("14\n")
    with pytest.raises(UserError, match="was made by PostgreSQL 14"):
        server.start()


def test_without_any_database_the_error_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="two-tower up"):
        resolve_dsn()
    result = two_tower("doctor", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert "two-tower up" in result.stderr


# ------------------------------------------------------------------------------------------------ which database


def test_a_dsn_comes_before_environment_dotenv_and_embedded_server(
    new_server: NewServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_server(with_cluster=True)
    server.start()
    monkeypatch.chdir(server.directory)
    assert resolve_dsn() == server.dsn
    (server.directory / ".env").write_text("DATABASE_URL=postgresql://dotenv/x\nUNRELATED=1\n")
    assert resolve_dsn() == "postgresql://dotenv/x"
    monkeypatch.setenv("DATABASE_URL", "postgresql://environment/x")
    assert resolve_dsn() == "postgresql://environment/x"
    assert resolve_dsn("postgresql://given/x") == "postgresql://given/x"


def test_psql_takes_what_follows_the_dashes(new_server: NewServer) -> None:
    server = new_server(with_cluster=True)
    server.start()
    result = two_tower("psql", "--", "-X", "-A", "-t", "-c", "select 6 * 7", cwd=server.directory)
    assert (result.returncode, result.stdout.strip()) == (0, "42"), result.stderr
    failed = two_tower("psql", "--", "-X", "-c", "select 1 / 0", cwd=server.directory)
    assert failed.returncode == 1


@pytest.mark.soak
def test_options_may_be_before_or_after_the_verb(cluster: Server) -> None:
    before = two_tower("--dsn", cluster.dsn, "--json", "doctor")
    after = two_tower("doctor", "--dsn", cluster.dsn, "--json")
    assert json.loads(before.stdout) == json.loads(after.stdout)


def test_wrong_usage_exits_2(tmp_path: Path) -> None:
    assert two_tower("no-such-verb", cwd=tmp_path).returncode == 2
    assert two_tower("doctor", "--no-such-option", cwd=tmp_path).returncode == 2


def test_a_missing_database_is_one_clear_message(cluster: Server) -> None:
    result = two_tower("doctor", "--dsn", in_database(cluster.dsn, "no_such_database"))
    assert result.returncode == 1
    assert 'database "no_such_database" does not exist' in result.stderr
    assert "Traceback" not in result.stderr


def test_the_page_names_a_port_that_is_in_use_and_no_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = two_tower("ui", "--port", str(port), "--dsn", "postgresql://nobody@127.0.0.1/none")
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use" in done.stderr
    assert "http://" not in done.stdout + done.stderr


def test_help_loads_none_of_the_large_libraries() -> None:
    large = {"numpy", "onnx", "onnxruntime", "polars", "psycopg", "pyarrow", "scipy", "streamlit", "torch"}
    script = "import sys\nfrom two_tower.cli.main import app\ntry: app(['--help'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Commands" in done.stdout
    assert not large & set(done.stdout.split())


def test_the_version_is_that_of_the_package() -> None:
    assert two_tower("--version").stdout == f"pg-two-tower {version('pg-two-tower')}\n"


# ------------------------------------------------------------------------------------------------ doctor


def findings(connection: Connection, dsn: str | None = None) -> dict[str, doctor.Check]:
    return {item.name: item for item in doctor.check(connection, dsn)}


def test_doctor_finds_the_embedded_server_fit(new_server: NewServer) -> None:
    server = new_server(durable=True)
    with psycopg.connect(server.start(), autocommit=True) as connection:
        found = findings(connection, server.dsn)
    for name in ("PostgreSQL", "extension plpython3u", "onnxruntime in the server", "pg_cron"):
        assert found[name].level == "ok", found[name]
    assert found["extension vector"].ok
    assert found["maintenance_work_mem"].ok
    assert found["active model"].level == "info"


def test_doctor_leaves_nothing_behind(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        doctor.check(connection, empty_dsn)
        assert connection.execute("select array_agg(extname::text) from pg_extension").fetchone() == (["plpgsql"],)
        assert connection.execute("select count(*) from pg_namespace where nspname = 'two_tower'").fetchone() == (0,)


def test_every_warning_and_failure_of_doctor_has_a_remedy(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        for item in doctor.check(connection, empty_dsn):
            assert (item.remedy is None) == (item.level in {"ok", "info"}), item
            assert item.ok == (item.level != "fail")


def test_doctor_on_a_migrated_database(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        found = findings(connection, dsn)
    assert found["migrations"].level == "ok"
    assert found["onnxruntime in the server"].level == "ok"
    assert found["active model"].detail.startswith("none")


def test_doctor_on_pending_migrations(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("two_tower.server.migrate.pending", lambda _: ["0099.later"])
    with psycopg.connect(dsn, autocommit=True) as connection:
        found = findings(connection, dsn)["migrations"]
    assert (found.ok, found.detail, found.remedy) == (False, "pending: 0099.later", "two-tower migrate")


def test_doctor_fails_with_exit_code_1_and_lists_what_fails_as_json(empty_dsn: str) -> None:
    result = two_tower("doctor", "--dsn", empty_dsn, "--json")
    assert result.returncode == 1
    failing = {item["name"]: item for item in json.loads(result.stdout) if not item["ok"]}
    assert failing["migrations"]["remedy"] == "two-tower migrate"
    text = two_tower("doctor", "--dsn", empty_dsn)
    assert text.returncode == 1
    assert "→ two-tower migrate" in text.stdout


@pytest.mark.parametrize(
    ("number", "level"),
    [(140011, "fail"), (150001, "ok"), (180003, "ok"), (190000, "warn")],
)
def test_doctor_on_server_versions(number: int, level: str) -> None:
    found = doctor.server_version(number)
    assert found.level == level
    assert (found.remedy is None) == (level == "ok")


def test_doctor_on_an_extension_that_the_server_lacks(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        found = doctor.extension(connection, "no_such_extension")
    assert (found.ok, found.level, found.detail) == (False, "fail", "not installed on the server")
    assert "apt-get install no_such_extension" in (found.remedy or "")


@pytest.mark.parametrize(
    ("offered", "installed", "level", "remedy"),
    [
        ("0.7.4", None, "fail", "install pgvector 0.8.4"),
        ("0.8.7", "0.7.4", "fail", "alter extension vector update"),
        ("0.8.0", "0.8.0", "warn", "install pgvector 0.8.4"),
        ("0.8.7", "0.8.0", "warn", "alter extension vector update"),
        ("0.8.7", "0.8.7", "ok", ""),
        ("0.10.0", "0.10.0", "ok", ""),
    ],
)
def test_doctor_on_versions_of_pgvector(
    database: NewDatabase, offered: str, installed: str | None, level: str, remedy: str
) -> None:
    with psycopg.connect(database(empty=True), autocommit=True) as connection:
        connection.execute(
            "create table public.pg_available_extensions (name text, default_version text, installed_version text)"
        )
        connection.execute("insert into public.pg_available_extensions values ('vector', %s, %s)", (offered, installed))
        connection.execute("set search_path = public, pg_catalog")
        found = doctor.extension(connection, "vector")
    assert found.level == level, found
    assert remedy in (found.remedy or "")


def test_doctor_as_a_role_that_may_not_create_extensions(cluster: Server, empty_dsn: str) -> None:
    with psycopg.connect(cluster.dsn, autocommit=True) as connection:
        connection.execute("drop role if exists doctor_poor")
        connection.execute("create role doctor_poor login")
    poor = in_database(empty_dsn, urlsplit(empty_dsn).path.removeprefix("/"), user="doctor_poor")
    with psycopg.connect(poor, autocommit=True) as connection:
        found = findings(connection, poor)
    for name in ("vector", "plpython3u"):
        item = found[f"extension {name}"]
        assert item.level == ("fail" if name == "vector" else "warn")  # without PL/Python the engine is sql
        assert "doctor_poor cannot create it" in item.detail
        assert f"create extension {name}" in (item.remedy or "")
    assert found["onnxruntime in the server"].level == "warn"


@pytest.mark.soak
def test_doctor_on_a_server_whose_python_lacks_onnxruntime(
    new_server: NewServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWO_TOWER_SERVER_PACKAGES", str(tmp_path))
    server = new_server(with_cluster=True)
    with psycopg.connect(server.start(), autocommit=True) as connection:
        found = doctor.server_python(connection)
    assert not found.ok
    assert "ModuleNotFoundError" in found.detail
    python = server.installation.python
    assert f"--python-version {python}" in (found.remedy or "")
    assert "PYTHONPATH" in (found.remedy or "")


def test_inference_starts_no_thread_that_reports_its_use(new_server: NewServer) -> None:
    """On a server as `two-tower up` starts it, where each backend imports onnxruntime itself."""
    with psycopg.connect(new_server(with_cluster=True).start(), autocommit=True) as connection:
        connection.execute("create extension plpython3u")
        inference = (DATABASE_FILES / "plpython" / "inference.py").read_text()
        backend = Path("/proc") / str(connection.info.backend_pid)
        assert doctor.server_python(connection).ok
        connection.execute(f"do $$\n{inference}\nload_libraries(plpy)\n$$ language plpython3u".encode())
        assert "onnxruntime" in (backend / "maps").read_text()
        assert len(list((backend / "task").iterdir())) == 1


def test_doctor_on_little_maintenance_memory(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute("set maintenance_work_mem = '64MB'")
        found = doctor.maintenance_memory(connection)
    assert (found.ok, found.level) == (True, "warn")
    assert "alter system set maintenance_work_mem" in (found.remedy or "")


def test_doctor_on_pg_cron_of_another_database(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        found = doctor.scheduler(connection)
    assert (found.ok, found.level) == (True, "warn")
    assert "cron.database_name" in (found.remedy or "")


@pytest.mark.soak
def test_doctor_without_pg_cron(new_server: NewServer) -> None:
    server = new_server(with_cluster=True)
    server.start()
    server.stop()
    with (server.data / "postgresql.auto.conf").open("a") as conf:
        conf.write("shared_preload_libraries = ''\n")
    with psycopg.connect(server.start(), autocommit=True) as connection:
        found = doctor.scheduler(connection)
    assert (found.ok, found.level) == (True, "warn")
    assert "shared_preload_libraries" in (found.remedy or "")
