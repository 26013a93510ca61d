"""Unusual environments: terminals that are not UTF-8, full or read-only disks, databases of other encodings, read-only
servers. The program works, or fails with one sentence, never with a traceback."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import quote

import polars as pl
import psycopg
import pytest
from typer.testing import CliRunner

from conftest import in_database
from two_tower import terminals
from two_tower.cli.main import app
from two_tower.data.catalogue_api import retry_after
from two_tower.errors import UserError
from two_tower.lifecycle import artifacts, patience
from two_tower.server.embedded import Server
from two_tower.writing import writing

Connection = psycopg.Connection[Any]


def run(*words: str) -> tuple[int, str]:
    """Exit code and output of a verb; asserts that it raised no exception."""
    result = CliRunner().invoke(app, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.exc_info)
    return result.exit_code, result.output


# ---------------------------------------------------------------------------------------------------------- terminals

ENCODINGS = ["utf-8", "euc_jp", "cp932", "latin-1", "ascii", "cp437", "koi8-r"]
SAID = "100 % – 2 × 3… → done ✓ “恋愛” ⠋ │ ━━ 👩 é"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_output_works_on_terminals_of_every_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    from rich.console import Console
    from rich.table import Table

    written = io.BytesIO()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(written, encoding=encoding))
    terminals.settle()
    table = Table("Spalte", "恋愛", title=SAID)
    table.add_row(SAID, "x")
    Console(force_terminal=True, soft_wrap=True).print(table, SAID)
    print(SAID)
    sys.stdout.flush()
    text = written.getvalue().decode(encoding)
    assert "100 % " in text
    assert ("恋愛" in text) == (encoding in ("utf-8", "euc_jp", "cp932"))
    if encoding in ("ascii", "latin-1"):
        assert "100 % - 2 " in text
    monkeypatch.undo()


def test_a_verb_and_its_json_work_on_a_latin_1_terminal(dsn: str, tmp_path: Path) -> None:
    """In a separate process; its JSON is valid."""
    encoding = "latin-1"
    (tmp_path / "カ.csv").write_text("product_url,title\nu/1,髙👩\n", encoding="utf-8")
    command = [sys.executable, "-m", "two_tower", "import", "catalog", "カ.csv", "--dsn", dsn]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    for more in ([], ["--json"]):
        done = subprocess.run([*command, *more], cwd=tmp_path, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        text = done.stdout.decode(encoding)
        if more:
            assert json.loads(text)["source"] == "カ.csv"


# -------------------------------------------------------------------------------------------------------------- disks


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EISDIR", "ENOTDIR", "EIO"])
@pytest.mark.parametrize("named", [True, False])
def test_an_error_of_the_disk_is_one_sentence(code: str, named: bool) -> None:
    number = getattr(errno, code)
    error = OSError(number, os.strerror(number), "x.part") if named else OSError(number, os.strerror(number))
    with pytest.raises(UserError) as caught, writing("x"):
        raise error
    assert caught.value.message == f"cannot write {'x.part' if named else 'x'}: {os.strerror(number)}"


def test_a_full_disk_under_polars_is_one_sentence() -> None:
    with pytest.raises(UserError, match="cannot write /dev/full: No space left on device"), writing("/dev/full"):
        pl.DataFrame({"a": [1]}).write_parquet("/dev/full")
    with pytest.raises(pl.exceptions.ColumnNotFoundError), writing("x"):
        pl.DataFrame({"a": [1]}).select("b")


@pytest.mark.world
def test_every_verb_names_a_target_that_it_cannot_write(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory in the place of a file, a file in the place of a directory, no space: for every verb that writes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", dsn)
    Path("file").write_text("")
    Path("folder.csv").mkdir()
    Path("folder.parquet").mkdir()
    Path("good.csv").write_text("product_url,title\nnew/1,T\n")
    Path("bad.csv").write_text("product_url,title\nnew/1,T\n,U\n")
    faults = [
        ("recommend", "--all", "--output", "file/recs.csv"),
        ("recommend", "--all", "--output", "nowhere/recs.csv"),
        ("recommend", "--all", "--output", "folder.csv"),
        ("recommend", "--all", "--output", "folder.parquet"),
        ("model", "export", "file/model"),
        ("model", "export", "file"),
        ("model", "publish", f"file://{tmp_path}/file/store"),
        ("dataset", "export", "file/data"),
        ("import", "catalog", "good.csv", "--summary", "folder.csv"),
        ("import", "catalog", "good.csv", "--summary", "nowhere/summary.json"),
        ("import", "catalog", "good.csv", "--summary", "/dev/full"),
        ("import", "catalog", "bad.csv", "--rejects", "folder.csv"),
        ("import", "catalog", "bad.csv", "--rejects", "/dev/full"),
    ]
    for words in faults:
        code, output = run(*words)
        assert code == 1, (words, output)
        assert "error:" in output, words
    with psycopg.connect(dsn) as db:
        found = db.execute("select count(*) from public.videos where product_url = 'new/1'").fetchone()
    assert found in [(0,), (1,)]


def test_a_full_output_is_one_sentence(dsn: str, tmp_path: Path) -> None:
    for words in (["status", "--json"], ["model", "list"]):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "two_tower", *words, "--dsn", dsn],
                stdout=full,
                stderr=subprocess.PIPE,
                check=False,
            )
        assert done.returncode == 1
        assert b"No space left on device" in done.stderr
        assert b"Traceback" not in done.stderr


# --------------------------------------------------------------------------------------------- databases and servers


@pytest.fixture
def other_encoding(cluster: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"test_in_{request.param.lower()}"
    with psycopg.connect(cluster.dsn, autocommit=True) as admin:
        admin.execute(f"drop database if exists {name} with (force)".encode())
        admin.execute(f"create database {name} encoding '{request.param}' locale 'C' template template0".encode())
        yield in_database(cluster.dsn, name)
        admin.execute(f"drop database {name} with (force)".encode())


@pytest.mark.sampled(1)
@pytest.mark.parametrize("other_encoding", ["EUC_JP", "SQL_ASCII", "LATIN1"], indirect=True)
def test_a_database_of_another_encoding_is_refused_by_name(
    other_encoding: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("catalog.csv").write_text("product_url,title\nu/1,恋愛\n", encoding="utf-8")
    name = request.node.callspec.params["other_encoding"]
    for words in (["migrate"], ["migrate", "--check"]):
        code, output = run(*words, "--dsn", other_encoding)
        assert code == 1
        assert f"the encoding of this database is {name}" in output
    for words in (["import", "catalog", "catalog.csv"], ["status"]):
        code, output = run(*words, "--dsn", other_encoding)
        assert code == 1, words


WRITERS = [
    ["import", "catalog", "catalog.csv"], ["train"], ["retrain"], ["refresh"], ["forget", "x"], ["verify"],
    ["model", "activate", "v1"], ["model", "rollback"], ["model", "retire", "v1"], ["model", "backfill", "v1"],
    ["model", "fetch", "file:///nowhere"], ["model", "register", "nowhere"], ["model", "upload-vectors", "nowhere"],
    ["import", "reviews", "nowhere"], ["import", "decisions", "nowhere", "--create-users"],
    ["import", "vectors", "nowhere", "--encoder", "clip"], ["ab", "start", "v1", "v2"], ["ab", "stop"],
    ["pull", "--from", "postgresql://nobody@localhost:1/nothing"],
]  # fmt: skip
READERS: list[list[str]] = [
    ["status"], ["model", "list"], ["recommend", "--all", "--output", "recs.csv"], ["model", "export", "model"],
]  # fmt: skip


@pytest.mark.world
def test_verbs_that_write_refuse_a_read_only_session_at_once(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("catalog.csv").write_text("product_url,title\nu/1,T\n")
    mark = "&" if "?" in dsn else "?"
    monkeypatch.setenv("DATABASE_URL", f"{dsn}{mark}options={quote('-c default_transaction_read_only=on')}")
    for words in WRITERS:
        code, output = run(*words)
        assert code == 1, words
        assert "transactions of this session" in output, (words, output)
        assert "are read-only (default_transaction_read_only)" in output, words
    for words in READERS:
        code, output = run(*words)
        assert "read-only" not in output, (words, output)


def test_verbs_that_write_refuse_a_standby(db: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    from two_tower import rows
    from two_tower.database import require_writable

    require_writable(db)
    answer: Callable[..., tuple[Any, ...]] = lambda *_: (True, True)  # noqa: E731
    monkeypatch.setattr(rows, "row", answer)
    with pytest.raises(UserError, match="this server is a standby") as caught:
        require_writable(db)
    assert caught.value.hint == "connect to the primary"


# ------------------------------------------------------------------------------------------------------------ buckets


class Bucket(BaseHTTPRequestHandler):
    """An S3 server that first answers with ``refusals``, each a status and headers, and then stores objects."""

    refusals: ClassVar[list[tuple[int, dict[str, str]]]] = []
    objects: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []
    last: ClassVar[tuple[int, dict[str, str]] | None] = None
    """The last refusal by path, which a HEAD request gets again."""

    def do_GET(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        self.asked.append(self.command)
        status, headers, content = 200, {"ETag": '"x"', "Last-Modified": "Fri, 27 Nov 2026 20:00:00 GMT"}, b""
        if self.command != "HEAD":
            type(self).last = self.refusals.pop(0) if self.refusals else None
        if self.last:
            status, headers = self.last
        elif self.command == "PUT":
            self.objects[path] = body
        elif path in self.objects:
            content = self.objects[path]
        else:
            status = 404
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Bucket]]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    Bucket.refusals, Bucket.objects, Bucket.asked = [], {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
    yield Bucket
    server.shutdown()
    server.server_close()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_requests_to_a_bucket_are_retried_after_its_retry_after(
    bucket: type[Bucket], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    for headers, expected in (
        ({"Retry-After": "7"}, [7, 7, 7]),
        ({}, [0.5, 1, 2]),
        ({"Retry-After": "soon"}, [0.5, 1, 2]),
    ):
        waited.clear()
        store = artifacts._store("s3://bucket/models")
        bucket.refusals = [(status, headers)] * 3
        artifacts._put(store, artifacts.CURRENT, b"{}", None)
        assert waited == expected
        bucket.refusals = [(status, headers)]
        assert artifacts._get(store, "s3://bucket/models", artifacts.CURRENT) == b"{}"
        assert waited == [*expected, expected[0]]
    assert bucket.asked.count("PUT") == 12


def test_retries_of_a_bucket_end_after_a_time(bucket: type[Bucket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE", 0.0)
    bucket.refusals = [(503, {})] * 9
    with pytest.raises(UserError, match=r"s3://bucket/models/current/manifest\.json: .*503"):
        artifacts.point("s3://bucket/models", b"{}")
    bucket.refusals = [(403, {})] * 2
    with pytest.raises(UserError, match="check the URL"):
        artifacts.point("s3://bucket/models", b"{}")
    assert len(bucket.refusals) == 1  # permanent errors are not retried


@pytest.mark.parametrize("value", ["0", "5", "120"])
def test_retry_after_may_be_seconds_or_a_date(value: str) -> None:
    assert retry_after(value) == float(value)
    later = datetime.now(UTC) + timedelta(seconds=int(value))
    assert retry_after(format_datetime(later, usegmt=True)) == pytest.approx(float(value), abs=2)
    assert retry_after("soon") is None
