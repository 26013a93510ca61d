"""Every verb on a database that is not migrated to this program's version: one sentence, the remedy, exit code 1."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from typer.testing import CliRunner

from conftest import Connection, in_database
from tiers import some
from two_tower.cli.main import app
from two_tower.errors import UserError
from two_tower.server.connection import connect
from two_tower.server.migrate import TEARDOWN
from two_tower.ui import actions, queries


def nothing(db: Connection) -> None:
    db.execute("drop schema two_tower cascade")


def begun(db: Connection) -> None:
    """The state after the first statement of a migration."""
    nothing(db)
    db.execute("create schema two_tower")


def half(db: Connection) -> None:
    """Interrupted between the migrations and the logic."""
    db.execute(TEARDOWN.read_bytes())


def older(db: Connection) -> None:
    db.execute(
        "delete from two_tower._yoyo_migration"
        " where migration_id = (select max(migration_id) from two_tower._yoyo_migration)"
    )


def newer(db: Connection) -> None:
    db.execute(
        "insert into two_tower._yoyo_migration (migration_hash, migration_id, applied_at_utc)"
        " values ('ffff', '9999.of-the-future', now())"
    )


def anothers(db: Connection) -> None:
    """The connecting role has no rights."""


# State → its message and its remedy.
STATES: dict[str, tuple[Callable[[Connection], None], str, str]] = {
    "not migrated": (nothing, "is not migrated", "two-tower migrate"),
    "begun": (begun, "is not migrated", "two-tower migrate"),
    "half migrated": (half, "or migrated in part", "two-tower migrate"),
    "older": (older, "is older than this program: it lacks migration", "two-tower migrate"),
    "newer": (newer, "is newer than this program, which does not know migration 9999.of-the-future", "--upgrade"),
    "another's": (anothers, "may not use the recommender of database", 'grant service_role to "'),
}


def verbs(directory: Path) -> list[list[str]]:
    file = directory / "rows.csv"
    file.write_text("product_url,title\n")
    return [
        ["train"],
        ["refresh"],
        ["refresh", "--dry-run"],
        ["status"],
        ["status", "--json", "--sample", "5"],
        ["recommend", "--all", "--output", str(directory / "r.csv")],
        ["evaluate"],
        ["retrain"],
        ["import", "catalog", str(file)],
        ["import", "reviews", str(file)],
        ["import", "decisions", str(file), "--create-users"],
        ["dataset", "export", str(directory / "set")],
        ["pull", "--from", "postgresql://nobody@localhost:1/nothing"],
        ["model", "list"],
        ["model", "register", str(directory)],
        ["model", "backfill", "v1"],
        ["model", "activate"],
        ["model", "rollback"],
        ["model", "retire", "v1"],
        ["model", "export", str(directory / "model")],
        ["model", "publish", f"file://{directory}/store"],
        ["model", "fetch", f"file://{directory}/store"],
    ]


@pytest.fixture(params=STATES)
def state(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def target(state: str, dsn: str, db: Connection) -> Iterator[str]:
    """The DSN with which to connect to a database in that state."""
    name = urlsplit(dsn).path.removeprefix("/")
    STATES[state][0](db)
    if state != "another's":
        yield dsn
        return
    db.execute(f"create role {name}_stranger login".encode())
    yield in_database(dsn, name, f"{name}_stranger")
    db.execute(f"drop role {name}_stranger".encode())


def test_every_verb_says_what_is_wrong_and_how_to_mend_it(
    state: str, target: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Each verb in two of the states; with ``--soak`` in all."""
    _, told, remedy = STATES[state]
    tried = (
        verbs(tmp_path) if request.config.getoption("--soak") else verbs(tmp_path)[list(STATES).index(state) % 3 :: 3]
    )
    for verb in tried:
        result = CliRunner().invoke(app, [*verb, "--dsn", target])
        assert isinstance(result.exception, SystemExit), (verb, result.exception)
        said = result.stderr.strip().splitlines()
        assert (result.exit_code, len(said)) == (1, 2), (verb, result.stderr)
        assert said[0].startswith("error: "), verb
        assert told in said[0], verb
        assert said[1].startswith("hint: "), verb
        assert remedy in said[1], verb


@pytest.mark.sampled(2)
def test_doctor_and_metrics_work_in_any_state(state: str, target: str) -> None:
    """They report any state, and never end in a traceback."""
    result = CliRunner().invoke(app, ["doctor", "--dsn", target])
    assert (result.exit_code, type(result.exception)) == (1, SystemExit), result.stdout
    assert "migrations" in result.stdout
    result = CliRunner().invoke(app, ["metrics", "--dsn", target])
    assert result.exit_code == 0
    assert "two_tower_up 0.0" in result.stdout
    assert STATES[state][1] in result.stderr


def test_the_page_reports_the_same_problem(state: str, target: str) -> None:
    # A login without rights is told of the page's role first.
    told = "may not switch to the role two_tower_viewer" if state == "another's" else STATES[state][1]
    with pytest.raises(UserError, match=told), queries.viewer(target):
        pass
    with pytest.raises(UserError, match=STATES[state][1]):
        actions.roll_back(target, "v1")


def test_the_tables_of_yoyo_may_be_in_either_schema(dsn: str, db: Connection) -> None:
    with connect(dsn):
        pass
    db.execute("alter table two_tower._yoyo_migration set schema public")
    # In public, an application's own migrations may use the same table.
    db.execute(
        "insert into public._yoyo_migration (migration_hash, migration_id, applied_at_utc)"
        " values ('aaaa', 'theirs', now())"
    )
    with connect(dsn):
        pass


@pytest.mark.parametrize("role", ["service_role", "two_tower_viewer"])
def test_a_role_that_cannot_read_migrations_can_use_its_rights(role: str, dsn: str, db: Connection) -> None:
    login = f"{role}_login_{urlsplit(dsn).path.removeprefix('/')}"
    db.execute(f"create role {login} login in role {role}".encode())
    try:
        own = in_database(dsn, urlsplit(dsn).path.removeprefix("/"), login)
        assert CliRunner().invoke(app, ["model", "list", "--dsn", own]).exit_code == 0
        refused = CliRunner().invoke(app, ["refresh", "--dsn", own])
        if role == "two_tower_viewer":
            assert refused.exit_code == 1
            assert "permission denied" in refused.stderr
            assert "a member of service_role" in refused.stderr
        else:
            assert refused.exit_code == 0, refused.stderr
    finally:
        db.execute(f"drop role {login}".encode())


# ------------------------------------------------------------------------------------------------ who migrates

# Right that is revoked from a login that may migrate → the message.
LACKS = {
    "connect": ("revoke connect on database {db} from public", "the role {role} may not connect to the database {db}"),
    "create": (
        "revoke create on database {db} from {role}",
        "the role {role} may not create schemas in the database {db}",
    ),
    "create in public": (
        "revoke create on schema public from {role}",
        "the role {role} may not create anything in schema public",
    ),
    **{
        f"usage of {schema}": (
            f"create schema if not exists {schema}; revoke usage on schema {schema} from public, {{role}}",
            f"the role {{role}} may not use the schema {schema}, which belongs to",
        )
        for schema in ("public", "auth", "extensions")
    },
    "the schema public": ("drop schema public cascade", "there is no schema public"),
    "pgvector": (
        "drop extension vector",
        "the extension vector is not created in this database, and takes a superuser",
    ),
    **{
        f"the table {table}": (
            f"create table public.{table} ({columns}); alter table public.{table} owner to two_tower_viewer",
            f"public.{table} belongs to two_tower_viewer, and the role {{role}} is no member of that",
        )
        for table, columns in (
            ("tags", "id uuid primary key, name text"),
            ("video_tags", "video_id uuid, tag_id uuid, primary key (video_id, tag_id)"),
        )
    },
    "the recommender": (
        "create schema two_tower; create table two_tower.created_objects (kind text, name text)",
        "the recommender of this database belongs to postgres, and the role {role} is no member of that",
    ),
}

FIRST = ("connect", "usage of auth", "pgvector", "the table tags", "the recommender")


@pytest.fixture
def migrator(empty_dsn: str) -> Iterator[tuple[str, Connection, str, str]]:
    """The DSN of an ordinary login that may migrate an empty database, its superuser, and names of both."""
    name = urlsplit(empty_dsn).path.removeprefix("/")
    role = f"{name}_migrator"
    with psycopg.connect(empty_dsn, autocommit=True) as db:
        db.execute(
            f"""create role {role} login createrole;
            grant create on database {name} to {role};
            grant create, usage on schema public to {role};
            create schema extensions;
            grant usage on schema extensions to {role};
            create extension vector with schema extensions""".encode()
        )
        yield in_database(empty_dsn, name, role), db, name, role
        db.execute(f"drop owned by {role} cascade; drop role {role}".encode())


@pytest.mark.sampled(1)
@pytest.mark.parametrize("lack", some(sorted(LACKS, key=lambda lack: lack not in FIRST), len(FIRST)))
def test_a_role_without_migration_rights_is_told_what_it_lacks(
    lack: str, migrator: tuple[str, Connection, str, str]
) -> None:
    dsn, db, name, role = migrator
    spoil, told = (text.format(db=name, role=role) for text in LACKS[lack])
    db.execute(spoil.encode())
    for words in (["--check"], [], ["--to", "0"]):
        result = CliRunner().invoke(app, ["migrate", *words, "--dsn", dsn])
        said = result.stdout + result.stderr
        assert (result.exit_code, type(result.exception)) == (1, SystemExit), said
        assert "permission denied" not in said
        if words != ["--to", "0"] or "no schema" in told or "use the schema" in told:
            assert told in said
    if lack == "the recommender":
        assert "migrate as postgres" in said
        assert "grant postgres" not in said
        return
    for _ in range(3):  # objects in a schema are checked once the schema may be used
        looked = CliRunner().invoke(app, ["migrate", "--check", "--dsn", dsn])
        for statement in re.findall(r"run: (.+)$", looked.output, re.MULTILINE):
            db.execute(statement.encode())
    result = CliRunner().invoke(app, ["migrate", "--dsn", dsn])
    assert result.exit_code == 0, result.stderr


def test_migrate_works_with_read_only_transactions_as_the_default(migrator: tuple[str, Connection, str, str]) -> None:
    dsn, db, name, _ = migrator
    db.execute(f"alter database {name} set default_transaction_read_only = on".encode())
    for words in (["--check"], [], ["--to", "0"]):
        result = CliRunner().invoke(app, ["migrate", *words, "--dsn", dsn])
        assert result.exit_code == 0, result.output
