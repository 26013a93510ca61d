"""The schema and the privileges equal the golden files. A planned change updates these: ``pytest --golden-update``."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

import catalogue_dump
from conftest import Connection
from two_tower.server.embedded import Server


def compare(request: pytest.FixtureRequest, name: str, found: str) -> None:
    path: Path = catalogue_dump.GOLDEN / name
    if request.config.getoption("--golden-update"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(found)
    expected = path.read_text()
    difference = "\n".join(
        difflib.unified_diff(expected.splitlines(), found.splitlines(), "golden", "found", lineterm="", n=2)
    )
    assert not difference, (
        f"{difference}\n\ntests/golden/{name} differs. Where the change is meant, write it anew with "
        "`.venv/bin/pytest tests/migrations/test_golden.py --golden-update`, and commit the difference."
    )


def test_the_schema_equals_the_golden_file(cluster: Server, dsn: str, request: pytest.FixtureRequest) -> None:
    dump = catalogue_dump.schema(cluster.installation.bindir, dsn)
    compare(request, "schema.sql", catalogue_dump.without_bodies(dump))


def test_the_privileges_equal_the_golden_file(db: Connection, request: pytest.FixtureRequest) -> None:
    compare(request, "privileges.txt", catalogue_dump.privileges(db, ("auth", "extensions", "public", "two_tower")))
