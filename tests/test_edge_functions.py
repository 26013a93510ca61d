"""The Edge Functions under Deno, against PostgREST, with npm's supabase-js."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from conftest import in_database
from documents import REPOSITORY
from rest_api import serve
from two_tower.bench.rest import sign
from two_tower.server.embedded import Server
from world_fixtures import NOBODY, Client, make_world

pytestmark = [pytest.mark.database, pytest.mark.xdist_group("postgrest")]

WORLD = make_world()
ME, OTHER, VIDEO = WORLD.usual, WORLD.many, WORLD.published[3]
USER, SERVICE, VISITOR = sign(role="authenticated", sub=str(ME)), sign(role="service_role"), sign(role="anon")
FORGED = sign(role="authenticated", sub=str(ME), secret="another secret, of 32 bytes or more")
FUNCTIONS = ("embed-user", "recommend")


def deno(node_modules: Path) -> str:
    """npm's Deno, or the one in PATH if npm has none for this machine."""
    packaged = node_modules / "@deno" / "linux-x64-glibc" / "deno"
    found = str(packaged) if packaged.exists() else shutil.which("deno")
    assert found, "there is no Deno: put version 2 or newer into PATH, https://docs.deno.com/runtime/getting_started/"
    return found


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running(program: str, directory: Path, name: str, url: str) -> Iterator[str]:
    """The URL of a function, as ``supabase functions serve`` would run it."""
    port = free_port()
    environment = os.environ | {
        "SUPABASE_URL": url,
        "SUPABASE_ANON_KEY": VISITOR,
        "DENO_SERVE_ADDRESS": f"tcp:127.0.0.1:{port}",
        "DENO_DIR": str(directory / ".deno"),
        "DENO_NO_UPDATE_CHECK": "1",
    }
    command = [program, "run", "--no-remote", "--node-modules-dir=manual", "--allow-net", "--allow-env", "--allow-read"]
    process = subprocess.Popen(
        [*command, f"{name}/index.ts"], cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            try:
                httpx2.options(f"http://127.0.0.1:{port}")
                break
            except httpx2.TransportError:
                time.sleep(0.05)
        else:
            process.kill()
            assert process.stdout
            raise AssertionError(f"{name} did not get ready:\n{process.stdout.read().decode()}")
        yield f"http://127.0.0.1:{port}/{name}"
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def directory(node_modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The functions as they are, beside the packages that they import."""
    made = tmp_path_factory.mktemp("functions") / "functions"
    shutil.copytree(REPOSITORY / "supabase" / "functions", made)
    (made / "node_modules").symlink_to(node_modules)
    shutil.copy(REPOSITORY / "tests" / "node" / "package.json", made)
    return made


@pytest.fixture(scope="module")
def dsn_of_functions(cluster: Server, world_template: str) -> Iterator[str]:
    name = f"functions_{os.getpid()}"
    with psycopg.connect(cluster.dsn, autocommit=True) as admin:
        admin.execute(f"create database {name} template {world_template}".encode())
        yield in_database(cluster.dsn, name)
        admin.execute(f"drop database {name} with (force)".encode())


@pytest.fixture(scope="module")
def functions(dsn_of_functions: str, directory: Path, node_modules: Path) -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        url = stack.enter_context(serve(dsn_of_functions, node_modules))
        yield {name: stack.enter_context(running(deno(node_modules), directory, name, url)) for name in FUNCTIONS}


@pytest.fixture
def asks(dsn_of_functions: str) -> Iterator[Client]:
    name = dsn_of_functions.rpartition("/")[2].partition("?")[0]
    with psycopg.connect(in_database(dsn_of_functions, name, "authenticator")) as connection:
        yield Client(connection)


def post(url: str, token: str | None, body: Any = None, **options: Any) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx2.post(url, headers=headers, json=body, timeout=30, **options)


def test_a_user_gets_their_own_list(functions: dict[str, str], asks: Client) -> None:
    given = {"limit": 7, "price_max": 30, "because": True}
    answer = post(functions["recommend"], USER, given)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"success": True, "videos": asks.rpc("authenticated", ME, "recommend_videos", **given)}
    # A client that gives its own user id, as older pipelines do.
    assert post(functions["recommend"], USER, given | {"user_id": str(ME)}).json() == answer.json()


def test_the_service_asks_on_behalf_of_a_user(functions: dict[str, str], asks: Client) -> None:
    answer = post(functions["recommend"], SERVICE, {"limit": 5, "user_id": str(OTHER)})
    assert answer.json()["videos"] == asks.rpc("authenticated", OTHER, "recommend_videos", limit=5)
    embedded = post(functions["embed-user"], SERVICE, {"user_id": str(OTHER), "force": True}).json()
    assert (embedded["success"], embedded["user_id"]) == (True, str(OTHER))


def test_a_visitor_gets_a_list_from_the_session(functions: dict[str, str], asks: Client) -> None:
    liked = [str(v) for v in WORLD.published[:3]]
    videos = post(functions["recommend"], VISITOR, {"liked": liked, "limit": 5}).json()["videos"]
    assert videos == asks.rpc("anon", None, "recommend_from", liked=liked, limit=5)


def test_embed_user_returns_after_the_vector_has_the_latest_like(
    functions: dict[str, str], dsn_of_functions: str, asks: Client
) -> None:
    vector = "select embedding::text from two_tower.user_embeddings where user_id = %s"
    with psycopg.connect(dsn_of_functions, autocommit=True) as db:
        before = db.execute(vector, [ME]).fetchone()
        db.execute("update user_video_decisions set decision_type = 'like' where user_id = %s", [ME])
        answer = post(functions["embed-user"], USER).json()
        assert (answer["success"], answer["user_id"], answer["model_version"]) == (True, str(ME), "v1")
        assert db.execute(vector, [ME]).fetchone() != before


@pytest.mark.parametrize(
    ("name", "token", "body", "status", "code"),
    [
        ("embed-user", None, {}, 401, "28000"),
        ("embed-user", VISITOR, {}, 401, "42501"),
        ("embed-user", USER, {"user_id": str(OTHER)}, 403, "42501"),
        ("embed-user", SERVICE, {}, 401, "28000"),
        ("embed-user", SERVICE, {"user_id": str(NOBODY)}, 404, "P0002"),
        ("embed-user", SERVICE, {"user_id": "x"}, 400, "22P02"),
        ("embed-user", USER, {"force": True, "no_such": 1}, 404, "PGRST202"),
        ("embed-user", USER, [1], 400, "json"),
        ("recommend", VISITOR, {}, 401, "42501"),
        ("recommend", USER, {"user_id": str(OTHER)}, 403, "42501"),
        ("recommend", USER, {"p_user_id": str(OTHER)}, 403, "42501"),
        ("recommend", USER, {"limit": 201}, 400, "22023"),
        ("recommend", VISITOR, {"liked": [str(NOBODY)] * 501}, 400, "22023"),
        ("recommend", "rubbish", {}, 401, None),
        ("recommend", FORGED, {}, 401, None),
    ],
)  # fmt: skip
def test_refused_requests_have_a_status_and_a_code(
    name: str, token: str | None, body: Any, status: int, code: str | None, functions: dict[str, str]
) -> None:
    answer = post(functions[name], token, body)
    assert answer.status_code == status, answer.text
    found = answer.json()
    assert found.keys() == {"success", "code", "message", "hint"}
    assert found["success"] is False
    assert code is None or found["code"] == code
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_browsers_may_call_the_functions_across_origins(functions: dict[str, str]) -> None:
    for url in functions.values():
        answer = httpx2.options(url)
        assert answer.status_code == 204
        assert "authorization" in answer.headers["Access-Control-Allow-Headers"]
        assert httpx2.get(url).status_code == 405
        assert httpx2.post(url, headers={"Authorization": f"Bearer {USER}"}, content="{").status_code == 400


def test_the_functions_pass_the_type_check(directory: Path, node_modules: Path) -> None:
    command = [deno(node_modules), "check", "--no-remote", "--node-modules-dir=manual"]
    done = subprocess.run(
        [*command, *(f"{name}/index.ts" for name in FUNCTIONS)],
        cwd=directory,
        env=os.environ | {"DENO_DIR": str(directory / ".deno")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
