"""``two-tower migrate --sql``: one SQL file with the same result as ``two-tower migrate`` by an ordinary role."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import psycopg
import pytest

import catalogue_dump
from conftest import in_database
from test_without_superuser import database_of, owner  # noqa: F401 - a fixture
from two_tower.errors import UserError
from two_tower.server import migrate
from two_tower.server.contract import COLUMNS, TRIGGERED, TRIGGERS, UUID
from two_tower.server.embedded import Server
from two_tower.server.script import script
from world_fixtures import one

pytestmark = [pytest.mark.xdist_group("without_superuser"), pytest.mark.database]

APPLICATION = [
    f"create table public.{table} ({', '.join(f'{name} {types[kind]}' for name, kind in columns.items())}, {key})"
    for types in [{UUID: "uuid", "text": "varchar(80)", "a number": "int", "a date or time": "timestamp"}]
    for table, columns in COLUMNS.items()
    for key in [f"primary key ({'id' if 'id' in columns else ', '.join(list(columns)[:2])})"]
]


def by_psql(cluster: Server, dsn: str) -> None:
    command = [str(cluster.installation.bindir / "psql"), "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", dsn]
    subprocess.run(command, input=script(), text=True, check=True, capture_output=True)


def as_one_query(cluster: Server, dsn: str) -> None:
    """As a console sends pasted text."""
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute(script().encode())


def in_a_transaction(cluster: Server, dsn: str) -> None:
    """As tools send a migration, in a transaction of their own."""
    with psycopg.connect(dsn) as db:
        db.execute(script().encode())


WAYS = [by_psql, as_one_query, in_a_transaction]


@pytest.fixture
def empty(cluster: Server, owner: str) -> Iterator[str]:  # noqa: F811
    with database_of(cluster, owner) as dsn:
        yield dsn


@pytest.fixture
def migrated(cluster: Server, owner: str) -> Iterator[Callable[[list[str]], str]]:  # noqa: F811
    """A database with these tables after ``migrate`` by the same role."""
    with database_of(cluster, owner) as dsn:

        def make(tables: list[str]) -> str:
            create(dsn, tables)
            migrate.migrate(dsn)
            return everything(cluster, dsn)

        yield make


def create(dsn: str, statements: list[str]) -> None:
    with psycopg.connect(dsn) as db:
        for statement in statements:
            db.execute(statement.encode())


def everything(cluster: Server, dsn: str) -> str:
    """Schema, privileges, owners, and the rows that migrations insert."""
    with psycopg.connect(dsn) as db:
        rows = [
            list(map(str, db.execute(query.encode()).fetchall()))
            for query in (
                "select * from two_tower.created_objects order by kind, name",
                "select * from two_tower.settings order by name",
                "select program, logic_sha256 from two_tower.installation",
                "select one, visible_when, stated from two_tower.catalogue_rule",
                "select migration_id, migration_hash from two_tower._yoyo_migration order by 1",
                "select migration_id, operation from two_tower._yoyo_log order by 1",
                "select version from two_tower._yoyo_version",
                """select relname, relkind, relrowsecurity, relacl::text, pg_get_userbyid(relowner),
                    obj_description(oid, 'pg_class')
                from pg_class where relnamespace = 'two_tower'::regnamespace order by 1""",
                """select oid::regprocedure::text, proacl::text, pg_get_userbyid(proowner)
                from pg_proc where pronamespace in ('public'::regnamespace, 'two_tower'::regnamespace) order by 1""",
            )
        ]
        granted = catalogue_dump.privileges(db, ("auth", "extensions", "public", "two_tower"))
    return "\n".join([catalogue_dump.schema(cluster.installation.bindir, dsn), granted, *(str(row) for row in rows)])


@pytest.mark.sampled(2)
@pytest.mark.parametrize("tables", [[], APPLICATION], ids=["empty", "an application"])
@pytest.mark.parametrize("way", WAYS)
def test_the_script_gives_the_same_database_as_migrate(
    way: Callable[[Server, str], None],
    tables: list[str],
    cluster: Server,
    empty: str,
    migrated: Callable[[list[str]], str],
) -> None:
    create(empty, tables)
    way(cluster, empty)
    found = everything(cluster, empty)
    assert found.splitlines() == migrated(tables).splitlines()
    assert migrate.pending(empty) == []
    assert migrate.migrate(empty) == {"applied": [], "rolled_back": []}
    assert everything(cluster, empty).splitlines() == found.splitlines()
    migrate.migrate(empty, to="0")
    with psycopg.connect(empty) as db:
        assert one(db, "select to_regnamespace('two_tower')") is None


def test_default_privileges_of_the_application_grant_nothing_of_ours(cluster: Server, empty: str) -> None:
    create(
        empty,
        [
            "alter default privileges grant all on tables to pg_monitor",
            "alter default privileges grant execute on routines to pg_monitor",
            "create table public.theirs (id int)",
        ],
    )
    as_one_query(cluster, empty)
    with psycopg.connect(empty) as db:
        granted = """select array_agg(distinct c.oid::regclass::text)
            from pg_class c cross join lateral aclexplode(c.relacl) a
            where pg_get_userbyid(a.grantee) = 'pg_monitor'
                and c.relnamespace in ('public'::regnamespace, 'two_tower'::regnamespace)"""
        assert one(db, granted) == ["theirs"]
        routines = """select count(*) from pg_proc p cross join lateral aclexplode(p.proacl) a
            where pg_get_userbyid(a.grantee) = 'pg_monitor'
                and p.pronamespace in ('public'::regnamespace, 'two_tower'::regnamespace)"""
        assert one(db, routines) == 0


UNFIT = {
    "a schema of that name": (["create schema two_tower"], "there is a schema two_tower"),
    "a routine of that name": (
        ["create function public.update_user_features(user_id uuid) returns int language sql as 'select 1'"],
        r"update_user_features\(uuid\)",
    ),
    "a view": (["create view public.videos as select gen_random_uuid() as id"], "public.videos is no ordinary table"),
    "a partitioned table": (
        ["create table public.tags (id uuid, name text) partition by hash (id)"],
        "public.tags is no ordinary table",
    ),
    **{
        f"{name} on {table}": (
            [
                *APPLICATION,
                "create function public.t() returns trigger language plpgsql as 'begin return null; end'",
                f"create trigger {name} after insert on public.{table} for each row execute function public.t()",
            ],
            f"public.{table} has a trigger {name} of the application",
        )
        for table, name in zip((*TRIGGERED, "videos"), TRIGGERS, strict=True)
    },
    "forced policies": (
        [*APPLICATION, "alter table public.videos force row level security"],
        "public.videos has row level security that binds its owner",
    ),
    **{
        f"{table} without {column}": (
            [*APPLICATION, f"alter table public.{table} drop column {column} cascade"],
            f"public.{table} lacks {column}",
        )
        for table, columns in COLUMNS.items()
        for column in columns
    },
    **{
        f"{table} with {column} as text": (
            [*APPLICATION, f"alter table public.{table} alter column {column} type text"],
            f"public.{table} must have ids of type uuid",
        )
        for table, columns in COLUMNS.items()
        for column, kind in columns.items()
        if kind == UUID
    },
    **{
        f"{table} without a key": (
            [*APPLICATION, f"alter table public.{table} drop constraint {table}_pkey cascade"],
            f"public.{table} has no unique key",
        )
        for table in COLUMNS
    },
}


def test_an_unsuitable_database_is_refused_in_one_sentence(cluster: Server, empty: str) -> None:
    text = script().encode()
    with psycopg.connect(empty) as db:
        for why, (statements, expected) in UNFIT.items():
            for statement in statements:
                db.execute(statement.encode())
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=expected) as refused:
                db.execute(text)
            assert refused.value.diag.message_hint, why
            db.rollback()
            assert one(db, "select to_regclass('public.videos')") is None, why


def test_a_superuser_or_another_pgvector_schema_is_referred_to_migrate(cluster: Server, empty: str) -> None:
    admin = in_database(cluster.dsn, urlsplit(empty).path.removeprefix("/"))
    with (
        psycopg.connect(admin, autocommit=True) as db,
        pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="a superuser runs `two-tower migrate`"),
    ):
        db.execute(script().encode())
    with psycopg.connect(admin, autocommit=True) as db:
        db.execute("alter extension vector set schema public")
    with (
        psycopg.connect(empty, autocommit=True) as db,
        pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="pgvector is in schema public"),
    ):
        db.execute(script().encode())


def test_a_script_that_fails_halfway_changes_nothing(cluster: Server, empty: str) -> None:
    text = script()
    with psycopg.connect(empty, autocommit=True) as db:
        with pytest.raises(psycopg.errors.DivisionByZero):
            db.execute(text.replace("\ncommit;", "\nselect 1 / 0;\ncommit;").encode())
        db.rollback()
        assert one(db, "select to_regnamespace('two_tower')") is None


@pytest.mark.parametrize("options", [{"to": "0"}, {"check": True}, {"take_names": True}, {"json": True}])
def test_migrate_sql_accepts_no_other_option(options: dict[str, object]) -> None:
    from two_tower.cli.server import migrate as verb

    with pytest.raises(UserError, match="takes no other option"):
        verb(sql=True, **options)  # type: ignore[arg-type]


def test_the_script_contains_no_psql_command() -> None:
    assert not [line for line in script().splitlines() if line.startswith("\\")]
