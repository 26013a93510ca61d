"""A PostgREST in front of a benchmark's database, and an application's requests to it at a given rate.

pgbench does not speak HTTP, so there is a thread for each client, and one schedule of due times from which a free
client takes the next. A request waits for a client as it would wait in an application's queue.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np
from psycopg.conninfo import make_conninfo

from two_tower.errors import UserError

SECRET = "of a server that is thrown away, 32 bytes or more"  # noqa: S105 - it is
POOL = 10
"""Connections to the database: PostgREST's default."""
PATIENCE = 30.0
"""Seconds until a client gives up waiting for an answer."""

Send = Callable[[httpx2.Client, np.random.Generator, int, int], httpx2.Response]
"""Makes a request as one of ``users``, about one of ``videos``."""


def sign(*, secret: str | None = None, **claims: object) -> str:
    """A JWT (HS256) with these claims, which :func:`postgrest` accepts unless another ``secret`` is given."""

    def encoded(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    signed = ".".join(encoded(json.dumps(each).encode()) for each in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{signed}.{encoded(hmac.digest((secret or SECRET).encode(), signed.encode(), hashlib.sha256))}"


def token(user: int) -> dict[str, str]:
    """Request headers of the benchmark user with this number."""
    return {"Authorization": f"Bearer {sign(role='authenticated', sub=ident('user', user))}"}


def ident(kind: str, number: int) -> str:
    """``md5(kind || number)``, which SQL casts to a uuid."""
    return hashlib.md5(f"{kind}{number}".encode(), usedforsecurity=False).hexdigest()


def _list(client: httpx2.Client, chance: np.random.Generator, users: int, videos: int) -> httpx2.Response:
    headers = token(int(chance.integers(users)))
    return client.post("/rpc/recommend_videos", headers=headers, json={"limit": 20})


def _like(client: httpx2.Client, chance: np.random.Generator, users: int, videos: int) -> httpx2.Response:
    user = int(chance.integers(users))
    # As pgbench draws them: the first videos are the popular ones.
    video = min(int(videos * chance.exponential(0.25)), videos - 1)
    row = {"video_id": ident("video", video), "decision_type": "like"}
    headers = token(user) | {"Prefer": "resolution=merge-duplicates,return=minimal"}
    return client.post("/user_video_decisions?on_conflict=user_id,video_id", headers=headers, json=row)


def _embed(client: httpx2.Client, chance: np.random.Generator, users: int, videos: int) -> httpx2.Response:
    return client.post("/rpc/embed_user", headers=token(int(chance.integers(users))), json={})


REQUESTS: dict[str, Send] = {"list": _list, "like": _like, "embed": _embed}


@contextmanager
def postgrest(dsn: str, program: str | None = None, settings: Mapping[str, str] | None = None) -> Iterator[Path]:
    """Starts a PostgREST that connects by ``dsn`` as ``authenticator`` and accepts tokens of :func:`sign`; its socket.

    ``program`` is its path, by default from PATH; ``settings`` override those here. Raises UserError if there is
    none, or it does not become ready.
    """
    program = program or shutil.which("postgrest")
    if program is None:
        raise UserError(
            "there is no PostgREST in PATH",
            "install it, https://github.com/PostgREST/postgrest/releases, or measure without --postgrest",
        )
    with tempfile.TemporaryDirectory(prefix="two-tower-rest-", dir="/tmp") as made:  # the path of a socket is short
        socket, log = Path(made) / "socket", Path(made) / "log"
        environment = {
            "PGRST_DB_SCHEMAS": "public",
            "PGRST_DB_EXTRA_SEARCH_PATH": "public, extensions",
            "PGRST_DB_ANON_ROLE": "anon",
            "PGRST_DB_POOL": str(POOL),
            **(settings or {}),
            "PGRST_DB_URI": make_conninfo(dsn, user="authenticator"),
            "PGRST_JWT_SECRET": SECRET,
            "PGRST_SERVER_UNIX_SOCKET": str(socket),
            "LANG": "C.UTF-8",
        }
        with log.open("wb") as output:
            process = subprocess.Popen([program], env=os.environ | environment, stdout=output, stderr=output)
            try:
                _wait_until_ready(socket, process, log)
                yield socket
            finally:
                process.terminate()
                process.wait(timeout=30)


def _wait_until_ready(socket: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    with client_of(socket) as client:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if client.get("/").is_success:
                    return
            except httpx2.TransportError:
                pass  # it does not listen yet
            time.sleep(0.05)
    raise UserError(f"PostgREST did not get ready: {log.read_text()[-600:]}")


def client_of(socket: Path) -> httpx2.Client:
    """An HTTP client for the server on this socket."""
    return httpx2.Client(transport=httpx2.HTTPTransport(uds=str(socket)), base_url="http://postgrest", timeout=PATIENCE)


def requests(
    socket: Path, mix: Mapping[str, int], *, users: int, videos: int, clients: int, rate: float, seconds: int
) -> tuple[dict[str, np.ndarray], int, tuple[str, ...]]:
    """Request -> seconds that each took from when it was due, the number of errors, and their messages.

    Requests that are due but not begun when the time is over are left out, as by pgbench.
    """
    chance = np.random.default_rng(0)
    due = np.cumsum(chance.exponential(1 / rate, int(rate * seconds * 2) + 100))
    due = due[due < seconds]
    names = [name for name, weight in mix.items() if weight > 0]
    shares = np.array([mix[name] for name in names], dtype=float)
    drawn = chance.choice(len(names), len(due), p=shares / shares.sum())
    plan = iter(enumerate(zip(due.tolist(), drawn.tolist(), strict=True)))
    took: dict[str, list[float]] = {name: [] for name in names}
    failed: list[str] = []
    lock = threading.Lock()
    started = time.monotonic()

    def work() -> None:
        with client_of(socket) as client:
            while True:
                with lock:
                    at, (moment, kind) = next(plan, (-1, (0.0, 0)))
                if at < 0 or time.monotonic() - started >= seconds:
                    return
                time.sleep(max(0.0, started + moment - time.monotonic()))
                try:
                    answer = REQUESTS[names[kind]](client, np.random.default_rng((1, at)), users, videos)
                    wrong = None if answer.is_success else f"{answer.status_code}: {answer.text[:200]}"
                except httpx2.TransportError as error:
                    wrong = f"{type(error).__name__}: {error}"
                with lock:
                    if wrong is None:
                        took[names[kind]].append(time.monotonic() - started - moment)
                    else:
                        failed.append(wrong)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {name: np.array(values) for name, values in took.items()}, len(failed), tuple(dict.fromkeys(failed))[:3]
