"""The pages of docs/reference/ are complete, and equal the descriptions in the database and the command line."""

from __future__ import annotations

import difflib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from conftest import Connection
from two_tower.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "reference"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "site" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_generated_from_the_database_and_the_verbs(
    db: Connection, request: pytest.FixtureRequest
) -> None:
    pages = generator().pages(db)
    if request.config.getoption("--golden-update"):
        for name, text in pages.items():
            (PAGES / name).write_text(text, encoding="utf-8")
    written = {path.name: path.read_text(encoding="utf-8") for path in PAGES.glob("*.md")}
    assert written.keys() == pages.keys()
    for name, text in pages.items():
        difference = "\n".join(difflib.unified_diff(written[name].splitlines(), text.splitlines(), name, "found", n=1))
        assert not difference, (
            f"{difference}\n\nWhere the change is meant: pytest tests/test_reference.py --golden-update"
        )


def test_every_object_has_a_description_in_the_reference(db: Connection) -> None:
    pages = {path.name: path.read_text(encoding="utf-8") for path in PAGES.glob("*.md")}
    said = [section.split("\n\n") for name in pages for section in pages[name].split("\n## ")[1:]]
    assert [section[0] for section in said if "None" in section[-2] or "None" in section[1]] == []
    objects = db.execute(
        """select count(*) from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where nspname in ('public', 'two_tower') and prorettype <> 'trigger'::regtype
            and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')"""
    ).fetchone()
    assert objects is not None
    assert sum(pages[name].count("\n## ") for name in ("rpcs.md", "routines.md")) == objects[0] > 100
    relations = db.execute(
        """select count(*) from pg_class where relnamespace in ('public'::regnamespace, 'two_tower'::regnamespace)
            and relkind in ('r', 'p', 'v') and not relispartition and relname !~ 'yoyo'"""
    ).fetchone()
    assert relations is not None
    assert pages["tables.md"].count("\n## ") == relations[0] > 50
    settings = db.execute("select name from two_tower.settings").fetchall()
    assert [name for (name,) in settings if f"\n| `{name}` |" not in pages["settings.md"]] == []


@pytest.mark.soak
def test_the_site_builds_without_warnings_or_network_access(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs/site", ".", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert (
            re.findall(r"<(?:script|img|iframe)[^>]*src=\"https?://|<link[^>]*stylesheet[^>]*href=\"https?://", text)
            == []
        )


def test_every_sqlstate_that_is_raised_is_explained() -> None:
    sources = [*ROOT.glob("sql/**/*.sql"), *ROOT.glob("migrations/*.sql")]
    raised = {
        state for path in sources for state in re.findall(r"errcode = '(\w{5})'", path.read_text(encoding="utf-8"))
    }
    assert raised == generator().SQLSTATES.keys()


def test_no_number_of_any_verb_may_be_infinite_or_too_large_to_count() -> None:
    def verbs(command: Any, path: list[str]) -> Iterator[tuple[list[str], Any]]:
        for name, each in getattr(command, "commands", {}).items():
            yield from verbs(each, [*path, name])
        if not hasattr(command, "commands"):
            yield path, command

    tried = 0
    for path, verb in verbs(typer.main.get_command(app), []):
        needed = [word for each in verb.params if each.required for word in (*each.opts[:1], "1") if word[0] in "-1"]
        for parameter in verb.params:
            kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
            if kind not in (int, float) or not parameter.opts[0].startswith("-"):
                continue
            for value in ("9" * 20, "-" + "9" * 20, *(("inf", "-inf", "nan") if kind is float else ())):
                done = CliRunner().invoke(app, [*path, *needed, parameter.opts[0], value])
                tried += 1
                assert done.exit_code == 2, (path, parameter.opts, value, done.output)
                assert parameter.opts[0] in done.output, (path, parameter.opts, value, done.output)
    assert tried > 100
