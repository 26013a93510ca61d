"""The documents: every block of code runs as written, every link leads somewhere, every name they mention exists.

    make docs-test

README.md runs first, in a copy of this checkout, and builds the system that the other documents then use, each in a
terminal of its own. Blocks that cannot be run here have a reason in the document, with which they are skipped.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import psycopg
import pytest
import typer
from pydantic import AliasChoices

from conftest import Connection, remove_server, server_directory
from documents import NOT_RUNNABLE, REPOSITORY, RUNNABLE, Block, Shell, blocks, documents, parse, prose
from rest_api import serve
from test_demo import own_files
from tiers import some
from two_tower.bench.rest import sign
from two_tower.cli.main import app
from two_tower.server.contract import NEWEST, OLDEST
from two_tower.server.embedded import Server
from two_tower.settings import Settings

DOCUMENTS = documents()
ALL = {str(path.relative_to(REPOSITORY)): blocks(path) for path in DOCUMENTS}
TRANSLATIONS = {
    name: name.replace(".ja.md", ".md").replace("docs/ja/", "docs/")
    for name in ALL
    if name.endswith(".ja.md") or name.startswith("docs/ja/")
}
"""Translation → original. Both have the same blocks; those of the original are run."""
RUN = [
    name
    for name, found in ALL.items()
    if name not in TRANSLATIONS and any(b.language in RUNNABLE and b.why_not is None for b in found)
]
NOT_RUN = [b for name, found in ALL.items() if name not in TRANSLATIONS for b in found if b.why_not is not None]


# ------------------------------------------------------------------------------------------------ running the blocks


@dataclass
class System:
    """A copy of this checkout, as after ``make setup``, and the environment of a terminal in it."""

    directory: Path
    server: Server
    environment: dict[str, str]

    def run(self, document: str, environment: dict[str, str]) -> None:
        """Every block of a document, in order, in a new terminal."""
        shell = Shell(self.directory, self.environment | environment)
        (self.directory / ".docs-state").unlink(missing_ok=True)
        try:
            for block in ALL[document]:
                if block.language in RUNNABLE and block.why_not is None:
                    shell.run(block)
        finally:
            shell.close()


@pytest.fixture(scope="module")
def fresh(node_modules: Path, request: pytest.FixtureRequest) -> Iterator[System]:
    """A set-up checkout without a database. ``make test`` passes small files to the demo, by variables of make; with
    ``make soak`` it generates its data."""
    root = server_directory("two-tower-docs-")
    checkout = root / "pg-two-tower"
    omitted = shutil.ignore_patterns(".git", ".venv", ".two-tower", ".*_cache", ".hypothesis", "__pycache__", "build")
    shutil.copytree(REPOSITORY, checkout, ignore=omitted, symlinks=True)
    # What setup.sh would install is here already, with its stamp.
    venv, home = REPOSITORY / ".venv", (REPOSITORY / ".two-tower").resolve()
    (checkout / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (checkout / ".venv" / name).symlink_to(venv / name)
    stamp = 'eval "$(grep ^inputs_hash setup.sh)"; inputs_hash > .venv/.setup-stamp'
    subprocess.run(["bash", "-c", stamp], cwd=checkout, check=True)
    (checkout / ".two-tower").mkdir(mode=0o755)
    for packages in home.glob("site-packages-*"):
        (checkout / ".two-tower" / packages.name).symlink_to(packages)
    (checkout / "node_modules").symlink_to(node_modules)
    server = Server(checkout)
    # Variables of the make that runs the tests are not for the one that a document calls.
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("TWO_TOWER_", "XDG_", "MAKE", "MFLAGS", "ARGS"))
    }
    environment["PIP_NO_INDEX"] = "1"  # nothing here needs a network
    if not request.config.getoption("--soak"):
        environment |= {name.upper(): str(path) for name, path in own_files(root / "files").items()}
    yield System(checkout, server, environment)
    for home in (*checkout.glob("*/.two-tower"), checkout / ".two-tower"):
        remove_server(Server(home.parent))
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def system(fresh: System) -> System:
    """The system of a reader who followed README.md to its end."""
    fresh.run("README.md", {})
    return fresh


@pytest.mark.timeout(1200)
@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize("document", some(RUN, 1))
def test_every_block_runs_as_written(document: str, system: System, node_modules: Path) -> None:
    if document == "README.md":
        return  # the fixture ran it
    with psycopg.connect(system.server.dsn) as connection:
        row = connection.execute("select user_id::text from public.user_video_decisions order by 1 limit 1").fetchone()
    assert row
    with serve(system.server.dsn, node_modules) as url:
        environment = {
            "DATABASE_URL": system.server.dsn,
            "SUPABASE_URL": url,
            "SUPABASE_ANON_KEY": sign(role="anon"),
            "USER_ID": row[0],
            "USER_JWT": sign(role="authenticated", sub=row[0]),
            "PATH": f"{REPOSITORY / '.venv/bin'}{os.pathsep}{os.environ['PATH']}",
        }
        system.run(document, environment)


@pytest.mark.parametrize("block", NOT_RUN, ids=str)
def test_blocks_that_are_not_run_say_why(block: Block) -> None:
    assert block.why_not
    pytest.skip(block.why_not)


@pytest.mark.parametrize("document", ALL)
def test_every_block_has_a_known_language(document: str) -> None:
    for block in ALL[document]:
        assert block.language in RUNNABLE + NOT_RUNNABLE, f"{block}: {block.language!r}"


@pytest.mark.parametrize("translation", TRANSLATIONS)
def test_a_translation_has_the_structure_blocks_figures_and_links_of_the_original(translation: str) -> None:
    original = TRANSLATIONS[translation]
    here, there = REPOSITORY / translation, REPOSITORY / original
    assert structure(here) == structure(there)
    assert [facts(block) for block in ALL[translation]] == [facts(block) for block in ALL[original]]
    assert {text for _, text in prose(here)} == {text for _, text in prose(there)}
    assert figures(there) - figures(here) == Counter()
    assert links(here) == links(there)
    linked = {target.partition("#")[0] for target in targets(here) if not re.match("[a-z]+:", target)}
    english = {os.path.relpath(REPOSITORY / name, here.parent) for name in TRANSLATIONS.values()}
    assert linked & english == {os.path.relpath(there, here.parent)}  # to its original alone


def structure(path: Path) -> list[str]:
    """Its headings, paragraphs, list items, rows of tables, cells, bold words and so on, in order. Between Japanese
    letters and punctuation some ** stay asterisks. Comments are left out: they are for running the original."""
    found = []
    for token in parse(path):
        if token.type == "inline":
            found += ["bold"] * sum(child.type == "strong_open" for child in token.children or [])
        elif token.type != "html_block":
            found.append(f"{token.type} {token.tag}")
    return found


def facts(block: Block) -> tuple[str, str, bool]:
    return block.language, block.text, block.why_not is None


def figures(path: Path) -> Counter[str]:
    """How often it has each number in digits, except for millions and billions, which Japanese counts by ten thousands.
    A translation may have more of them, since it writes numbers that the original spells out in digits."""
    number = r"\.?\d++(?:[.,]\d++)*+(?! [mb]illion)"
    return Counter(re.findall(number, path.read_text(encoding="utf-8")))


def links(path: Path) -> set[str]:
    """Where it leads, from the repository's root; into translations as into the originals."""
    return {target if re.match("[a-z]+:", target) else place(path, target) for target in targets(path)}


def place(document: Path, target: str) -> str:
    file, _, anchor = target.partition("#")
    path = (document.parent / file).resolve() if file else document
    name = str(path.relative_to(REPOSITORY))
    if anchor and name in TRANSLATIONS:
        anchor = anchors(REPOSITORY / TRANSLATIONS[name])[anchors(path).index(anchor)]
    return f"{TRANSLATIONS.get(name, name)}#{anchor}"


# ------------------------------------------------------------------------------------------------ names in documents


def anchors(path: Path) -> list[str]:
    """Ids that GitHub assigns to the headings, in order."""
    tokens = parse(path)
    headings = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def targets(path: Path) -> list[str]:
    """Targets of its links and pictures."""
    return [
        unquote(str(child.attrs.get("href") or child.attrs.get("src")))
        for token in parse(path)
        if token.type == "inline"
        for child in token.children or []
        if child.type in ("link_open", "image")
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in targets(path):
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), target
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{path.name} links to {target}"
        assert not anchor or anchor in anchors(there), f"{path.name} links to {target}"


def commands(path: Path) -> list[tuple[str, list[str]]]:
    """(where, words after ``two-tower``) of every command line in blocks and inline code."""
    name = str(path.relative_to(REPOSITORY))
    lines = [(f"{name}:{line}", text) for line, text in prose(path) if text.startswith("two-tower ")]
    for block in blocks(path):
        if block.language not in ("bash", "text"):
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            lines += [(str(block), m.group(1)) for m in re.finditer(r"(?:^|\s|\()(two-tower [^#|;&)]*)", line)]
    found = []
    for where, text in lines:
        try:
            found.append((where, shlex.split(text)[1:]))
        except ValueError:
            found.append((where, text.split()[1:]))
    return found


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md", "docs/developing.md", "sql/README.md"])
def test_every_file_named_in_documents_for_developers_exists(name: str) -> None:
    path = REPOSITORY / name
    named = [text for _, text in prose(path) if re.fullmatch(r"[\w./-]*/[\w.-]+\.(py|sql|md|txt)|[\w.]+\.md", text)]
    assert named
    roots = (REPOSITORY, path.parent, REPOSITORY / "py" / "two_tower")
    assert [text for text in named if not any((root / text).exists() for root in roots)] == []


def test_every_invariant_is_documented_and_tested() -> None:
    stated = re.findall(r"^\| (I\d) \|", (REPOSITORY / "docs" / "developing.md").read_text(), re.MULTILINE)
    tested = {
        f"I{number}"
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for found in re.findall(r"def test_i(\d)_|[( ]I(?=\d[,)])(\d)", path.read_text())
        for number in found
        if number
    }
    assert stated == sorted(tested) == [f"I{number}" for number in range(1, 8)]


@pytest.mark.slow
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_every_verb_and_option_exists(path: Path) -> None:
    for where, words in commands(path):
        check_command(where, words)


@cache
def program() -> Any:
    return typer.main.get_command(app)


def check_command(where: str, words: list[str]) -> None:
    """Asserts that the verbs of a command line exist, and have the options that follow."""
    command = program()
    options = {name for parameter in command.params for name in parameter.opts}
    for word in words:
        if word == "--":
            break
        if word.startswith("-") and len(word) > 1:
            option = word.partition("=")[0]
            assert option in options | {"--help", "-h"}, f"{where}: {command.name} has no {option}"
        elif (below := getattr(command, "commands", None)) and re.fullmatch(r"[a-z][a-z-]*", word):
            assert word in below, f"{where}: there is no {word} in {' '.join(words)}"
            command = below[word]
            options |= {name for p in command.params for name in (*p.opts, *p.secondary_opts)}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_every_name_in_the_database_exists(path: Path, db: Connection) -> None:
    text = path.read_text(encoding="utf-8")
    known = {
        row[0]
        for row in db.execute(
            """select proname from pg_proc where pronamespace = 'two_tower'::regnamespace
            union select relname from pg_class where relnamespace = 'two_tower'::regnamespace
            union select typname from pg_type where typnamespace = 'two_tower'::regnamespace"""
        )
    }
    modules = {file.stem for file in (REPOSITORY / "py" / "two_tower").iterdir()}
    mentioned = set(re.findall(r"\btwo_tower\.(?!dump)([a-z][a-z0-9_]*)", text))
    assert mentioned - known - modules == set()
    public = {
        row[0]
        for row in db.execute("select proname from pg_proc where pronamespace = 'public'::regnamespace").fetchall()
    }
    called = set(re.findall(r"\brpc(?:\(['\"]|/)([a-z_]+)", text))
    assert called - public == set()


# ------------------------------------------------------------------------------------------------ the manual


def verbs(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every verb that can be run, with its words."""
    if below := getattr(command, "commands", None):
        for name, verb in below.items():
            yield from verbs(verb, (*path, name))
    else:
        yield path, command


VERBS = dict(verbs(typer.main.get_command(app)))


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_help_says_what_a_verb_does_with_examples_and_exit_codes(path: tuple[str, ...]) -> None:
    verb = VERBS[path]
    assert len((verb.help or "").split("\n\n")[0]) in range(20, 110)
    for parameter in verb.params:
        assert parameter.help, f"{parameter.name} of {path} is not explained"
    examples = [line for line in verb.epilog.splitlines() if "two-tower " in line]
    assert examples
    assert any(f"two-tower {' '.join(path)}" in line for line in examples)
    for line in examples:
        check_command(
            "--help", shlex.split(line.partition("two-tower ")[2].partition(" >")[0].partition("  ")[0].rstrip(")"))
        )
    assert re.search(r"Exit codes: \S", verb.epilog)


# ------------------------------------------------------------------------------------------------ other files

DOCKER = REPOSITORY / "docker"


def test_the_systemd_unit_runs_a_valid_command() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.read_string((DOCKER / "two-tower-refresh.service").read_text())
    assert unit.sections() == ["Unit", "Service", "Install"]
    program, *words = shlex.split(unit["Service"]["ExecStart"])
    assert (Path(program).name, words) == ("two-tower", ["refresh", "--every", "60"])
    check_command("two-tower-refresh.service", words)


def test_the_compose_service_runs_the_same_command_without_privileges() -> None:
    text = (DOCKER / "refresh.yml").read_text()
    assert 'command: [refresh, --every, "60"]' in text
    for line in ("cap_drop: [ALL]", "read_only: true", 'security_opt: ["no-new-privileges:true"]'):
        assert line in text
    assert "DATABASE_URL: ${DATABASE_URL:?" in text


# ------------------------------------------------------------------------------------------------ configuration

CONFIGURATION = REPOSITORY / "docs" / "configuration.md"


def rows(path: Path) -> dict[str, list[str]]:
    """First cell -> other cells, of the rows of its tables whose first cell is code."""
    found: dict[str, list[str]] = {}
    row: list[str] = []
    for token in parse(path):
        if token.type == "tr_open":
            row = []
        elif token.type == "inline":
            row.append(token.content)
        elif token.type == "tr_close" and row and row[0].startswith("`"):
            found[row[0].strip("`")] = row[1:]
    return found


def variables() -> set[str]:
    """Environment variables that the code reads."""
    fields = Settings.model_fields.items()
    prefix = str(Settings.model_config["env_prefix"])
    names: set[str] = set()
    for name, field in fields:
        alias = field.validation_alias
        spelt = alias.choices if isinstance(alias, AliasChoices) else [alias or f"{prefix}{name.upper()}"]
        names |= set(map(str, spelt))
    for verb in VERBS.values():
        names |= {parameter.envvar for parameter in verb.params if parameter.envvar}
    for source in (REPOSITORY / "py" / "two_tower").glob("*.py"):
        names |= set(re.findall(r"""environ(?:\.get\(|\[)\s*["']([A-Z_0-9]+)["'](?!\]\s*=\s)""", source.read_text()))
    return names - {"PATH", "WORLD_SIZE"}  # torchrun sets the latter for its processes


def test_the_table_of_configuration_matches_the_code(db: Connection) -> None:
    documented = rows(CONFIGURATION)
    settings = {row[0]: row[1] for row in db.execute("select name, value::text from two_tower.settings")}
    environment = {name for name, cells in documented.items() if cells[0] == "environment"}
    assert {name for name, cells in documented.items() if cells[0] == "database"} == settings.keys()
    assert {name: documented[name][1].strip("`") for name in settings} == settings
    assert variables() - environment == set()
    for name in environment - variables():
        assert name.startswith(("AWS_", "PIP_")) or name in (REPOSITORY / "setup.sh").read_text(), name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_every_variable_that_is_mentioned_is_in_the_table(path: Path) -> None:
    mentioned = set(re.findall(r"\b(?:TWO_TOWER|DMM|AWS)_[A-Z_]+\b(?!\*)", path.read_text(encoding="utf-8")))
    assert {name for name in mentioned if not name.endswith("_")} - rows(CONFIGURATION).keys() == set()


@pytest.mark.parametrize("name", ["setup.sh", "README.md", "README.ja.md", "docs/installing.md"])
def test_the_documented_versions_of_postgresql_are_those_checked(name: str) -> None:
    ranges = r"version < (\d+) \|\| version > (\d+)|PostgreSQL (\d\d)(?: to |–|〜|～)(\d\d)"
    stated = [tuple(filter(None, found)) for found in re.findall(ranges, (REPOSITORY / name).read_text())]
    assert stated
    assert set(stated) == {(str(OLDEST), str(NEWEST))}


# ------------------------------------------------------------------------------------------------ replaced workflows

BACKGROUND = REPOSITORY / "docs" / "background.md"
STATES = ("same", "else", "missing")


def test_every_row_of_the_background_table_is_complete() -> None:
    found: list[list[str]] = []
    for token in parse(BACKGROUND):
        if token.type == "tr_open":
            found.append([])
        elif token.type == "table_close":
            break
        elif token.type == "inline" and found:
            found[-1].append(token.content)
    rows_of_the_table = [row for row in found if row and row[0] in set("URTIM")]
    assert len(rows_of_the_table) > 70
    for document, described, here, state in rows_of_the_table:
        word = state.partition(":")[0]
        assert word in STATES, f"{document}, {described}: {state!r}"
        assert here or word == "missing", f"{document}, {described}: nothing is here"


@pytest.mark.parametrize(
    ("workflow", "inputs"),
    [
        ("retrain", ["update_embeddings", "publish_artifacts", "generate_embeddings", "mode"]),
        ("sync-videos", ["start_date", "end_date", "lookback_days", "skip_ingest", "skip_fetch", "mode"]),
    ],
)
def test_every_input_of_a_workflow_is_documented_and_used(workflow: str, inputs: list[str]) -> None:
    text = (REPOSITORY / ".github" / "workflows" / f"{workflow}.yml").read_text()
    asked = text.partition("inputs:")[2].partition("permissions:")[0]
    assert re.findall(r"^      (\w+):$", asked, re.MULTILINE) == inputs
    used = text.partition("jobs:")[2]
    documented = (REPOSITORY / "docs" / "automation.md").read_text()
    for name in inputs:
        assert f"inputs.{name}" in used
        assert f"`{name}`" in documented
    script = used.partition("run: |")[2]
    assert "${{" not in script  # inputs are values, never text of a script
    for line in re.findall(r"^ +(?:if .*; then )?(two-tower [^;\n]+)", script, re.MULTILINE):
        check_command(workflow, shlex.split(line.replace("$@", ""))[1:])
