"""All steps of the README on a hosted database without a superuser: pgvector is available, PL/Python is not.

The role that does everything may create roles and owns its database, as on Supabase, RDS or Neon.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from conftest import Connection, in_database, new_cluster, remove_server
from test_path import two_tower
from two_tower.server import migrate
from two_tower.server.embedded import Server
from two_tower.world import World, generate
from world_fixtures import column, load, make_world, one, tiny_model

pytestmark = pytest.mark.xdist_group("without_superuser")


@pytest.fixture(scope="module")
def owner(cluster: Server, template: str) -> Iterator[str]:
    """A role like those of hosts' customers. A superuser migrated first, and created service_role."""
    with role_of(cluster) as name:
        yield name


@contextmanager
def role_of(cluster: Server) -> Iterator[str]:
    """A role like those of hosts' customers."""
    name = f"owner_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(cluster.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("create role {} login createrole").format(sql.Identifier(name)))
        yield name
        connection.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def hosted(cluster: Server, owner: str) -> Iterator[str]:
    """An empty database of that role, with pgvector; the connection string is the role's."""
    with database_of(cluster, owner) as dsn:
        yield dsn


@contextmanager
def database_of(cluster: Server, owner: str) -> Iterator[str]:
    """An empty database of a role, with pgvector, as hosts create it; the connection string is the role's."""
    name = f"hosted_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(cluster.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {} owner {}").format(sql.Identifier(name), sql.Identifier(owner)))
        with psycopg.connect(in_database(cluster.dsn, name), autocommit=True) as other:
            other.execute("create schema extensions; grant usage on schema extensions to public")
            other.execute("create extension vector schema extensions")
        yield in_database(cluster.dsn, name, owner)
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return generate(tmp_path_factory.mktemp("world"), users=300, videos=300)


def test_all_verbs_work_without_a_superuser_or_plpython(hosted: str, world: World, tmp_path: Path) -> None:
    two_tower(hosted, "migrate", "--check")
    two_tower(hosted, "migrate")
    two_tower(hosted, "migrate")
    two_tower(hosted, "doctor")
    two_tower(hosted, "import", "catalog", world.catalog)
    two_tower(hosted, "import", "decisions", world.decisions, "--create-users")
    two_tower(hosted, "train", "--version", "first")
    two_tower(hosted, "model", "activate")
    with psycopg.connect(hosted, autocommit=True) as db:
        assert not one(db, "select rolsuper from pg_roles where rolname = current_user")
        assert column(db, "select lanname from pg_language where lanname ~ '^plpython'") == []
        engines = "select user_engine, item_engine from two_tower.model_versions where version = 'first'"
        assert db.execute(engines.encode()).fetchone() == ("sql", "sql")
        user, video = db.execute(
            """select u.user_id, v.id from two_tower.user_features u, public.videos v
            where not exists (
                select from public.user_video_decisions d where d.user_id = u.user_id and d.video_id = v.id
            ) order by 1, 2 limit 1"""
        ).fetchone() or (None, None)
        vector = "select embedding::text from two_tower.user_embeddings where user_id = %s and model_version = 'first'"
        before = one(db, vector, user)
        db.execute(
            "insert into public.user_video_decisions (user_id, video_id, decision_type) values (%s, %s, 'like')",
            (user, video),
        )
        two_tower(hosted, "refresh")
        assert one(db, vector, user) != before
        assert one(db, "select two_tower.gate_parity('first', 1000)") <= 1e-6
        # A new video has no row of its own: its content places it.
        db.execute("insert into public.videos (product_url, title, published_at) values ('new', 'New', now())")
        two_tower(hosted, "refresh")
        assert one(
            db,
            """select count(*) from two_tower.video_embeddings e join public.videos v on v.id = e.video_id
            where v.product_url = 'new'""",
        )
    two_tower(hosted, "recommend", "--user", str(user), "--limit", "5", "--output", tmp_path / "list.csv")
    listed = (tmp_path / "list.csv").read_text().splitlines()[1:]
    assert len(listed) == 5
    assert not [row for row in listed if str(video) in row]
    assert json.loads(two_tower(hosted, "evaluate", "first", "--json"))["reasons"] == []
    two_tower(hosted, "retrain", "--over-popularity", "0", "--max-drop", "1")
    versions = {row["version"]: row["state"] for row in json.loads(two_tower(hosted, "model", "list", "--json"))}
    assert versions["first"] == "standby"
    two_tower(hosted, "model", "rollback")
    status = json.loads(two_tower(hosted, "status", "--json"))
    assert status["active_version"] == "first"


def test_exported_files_are_the_towers(hosted: str, tmp_path: Path) -> None:
    two_tower(hosted, "model", "export", tmp_path / "files")
    names = {entry["path"] for entry in json.loads((tmp_path / "files" / "manifest.json").read_text())["files"]}
    assert {"user_tower.onnx", "item_tower.onnx", "weights.safetensors"} <= names


def test_going_back_removes_schema_two_tower(hosted: str) -> None:
    migrate.migrate(hosted, to="0")
    with psycopg.connect(hosted, autocommit=True) as db:
        assert one(db, "select to_regnamespace('two_tower')") is None


# ------------------------------------------------------------------------------- a service_role that bypasses nothing


@pytest.fixture(scope="module")
def plain_server() -> Iterator[tuple[Server, str]]:
    """A separate server, where nobody can grant service_role bypassrls, and a role that migrates there."""
    server = new_cluster("two-tower-server-")
    try:
        server.start()
        with role_of(server) as role:
            yield server, role
    finally:
        remove_server(server)


@pytest.fixture(scope="module")
def plain_service(plain_server: tuple[Server, str]) -> Iterator[tuple[Server, str]]:
    """This server, and a database with the world, whose migrations created service_role."""
    server, role = plain_server
    with database_of(server, role) as dsn:
        migrate.migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as db:
            load(db, make_world())
            tiny_model(db, engine="sql")
        yield server, dsn


def policies(db: Connection) -> list[str]:
    return sorted(column(db, "select polrelid::regclass::text from pg_policy where polname = 'two_tower_service'"))


READ_BY_SERVICE = [
    "select * from public.get_user_embedding_feature_batch(100)",
    "select * from public.get_item_embedding_feature_batch(100)",
    "select * from two_tower.recommend_batch(array(select distinct user_id from public.user_video_decisions), 10)",
    "select * from two_tower.embed_users(array(select distinct user_id from public.user_video_decisions))",
    "select * from two_tower.stale_users(null, 0, true, null)",
    "select * from two_tower.coverage",
    "select * from two_tower.models",
    "select * from two_tower.problems",
    "select active_version, videos, video_vectors, user_vectors, pending_user_changes from two_tower.status",
]


@pytest.mark.soak
def test_service_role_without_bypassrls_sees_all_our_rows(plain_service: tuple[Server, str]) -> None:
    server, dsn = plain_service
    with psycopg.connect(dsn, autocommit=True) as db:
        assert not one(db, "select rolbypassrls from pg_roles where rolname = 'service_role'")
        tables = column(
            db,
            """select c.oid::regclass::text from pg_class c
            where c.relkind in ('r', 'p') and not c.relispartition
                and has_table_privilege('service_role', c.oid, 'select')
                and c.relnamespace in ('public'::regnamespace, 'two_tower'::regnamespace)""",
        )
        assert policies(db) == sorted(tables)
        asked = [*(f"select * from {table}" for table in tables), *READ_BY_SERVICE]
        seen = {query: sorted(map(str, db.execute(query.encode()).fetchall())) for query in asked}
        assert sum(len(rows) > 0 for rows in seen.values()) > 20
        admin = in_database(server.dsn, urlsplit(dsn).path.removeprefix("/"))
        with psycopg.connect(admin, autocommit=True) as service:
            service.execute("set role service_role")
            for query, rows in seen.items():
                assert sorted(map(str, service.execute(query.encode()).fetchall())) == rows, query
            # It writes like the application's server, and runs the refresh.
            user, video = service.execute(
                """insert into public.user_video_decisions (user_id, video_id, decision_type)
                select u.user_id, v.id, 'like' from public.user_features u, public.videos v
                where not exists (
                    select from public.user_video_decisions d where d.user_id = u.user_id and d.video_id = v.id
                ) limit 1 returning user_id, video_id"""
            ).fetchone() or (None, None)
            service.execute("call two_tower.refresh()")
            assert one(service, "select count(*) from two_tower.pending_users") == 0
            service.execute("update two_tower.settings set value = '0.5' where name = 'gate_max_drop'")
            deleted = service.execute(
                "delete from public.user_video_decisions where user_id = %s and video_id = %s", (user, video)
            )
            assert deleted.rowcount == 1
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                service.execute("delete from two_tower.model_versions")
        # No other role sees more because of it.
        with psycopg.connect(admin, autocommit=True) as visitor:
            for role in ("anon", "authenticated"):
                visitor.execute(f"set role {role}".encode())
                if role == "authenticated":
                    assert one(visitor, "select count(*) from public.user_video_decisions") == 0
                else:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        visitor.execute("select from public.user_video_decisions")


def test_policies_for_service_role_exist_while_it_needs_them(plain_service: tuple[Server, str]) -> None:
    server, dsn = plain_service
    admin = in_database(server.dsn, urlsplit(dsn).path.removeprefix("/"))
    with psycopg.connect(dsn, autocommit=True) as db, psycopg.connect(admin, autocommit=True) as superuser:
        made = policies(db)
        migrate.migrate(dsn)
        assert policies(db) == made != []
        superuser.execute("alter role service_role bypassrls")
        migrate.migrate(dsn)
        assert policies(db) == []
        superuser.execute("alter role service_role nobypassrls")
        migrate.migrate(dsn)
        assert policies(db) == made
        migrate.migrate(dsn, to="0006.embeddings")
        assert policies(db) == []


def test_tables_of_the_application_get_no_policy_for_the_service(plain_server: tuple[Server, str]) -> None:
    server, role = plain_server
    with database_of(server, role) as dsn:
        with psycopg.connect(dsn, autocommit=True) as db:
            db.execute("create table public.tags (id uuid primary key, name text not null)")
            db.execute("alter table public.tags enable row level security")
        migrate.migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as db:
            assert not one(db, "select rolbypassrls from pg_roles where rolname = 'service_role'")
            assert "tags" not in policies(db)
            assert "videos" in policies(db)
