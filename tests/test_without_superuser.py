"""The whole path of the README as hosts have it that give nobody a superuser: pgvector is there, PL/Python is not.

The role that does everything may create roles and owns its database, as on Supabase, RDS or Neon.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from conftest import in_database
from test_path import two_tower
from two_tower.data.world import World, generate
from two_tower.server import migrate
from two_tower.server.embedded import Server
from world_fixtures import column, one

pytestmark = pytest.mark.xdist_group("without_superuser")


@pytest.fixture(scope="module")
def owner(cluster: Server) -> Iterator[str]:
    """A role as hosts give their customers."""
    name = f"owner_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(cluster.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("create role {} login createrole").format(sql.Identifier(name)))
        yield name
        connection.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def hosted(cluster: Server, owner: str) -> Iterator[str]:
    """An empty database of that role's, with pgvector; the connection string is the role's."""
    with database_of(cluster, owner) as dsn:
        yield dsn


@contextmanager
def database_of(cluster: Server, owner: str) -> Iterator[str]:
    """An empty database of a role's, with pgvector, as hosts make it; the connection string is the role's."""
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


def test_the_whole_path_takes_neither_a_superuser_nor_a_language(hosted: str, world: World, tmp_path: Path) -> None:
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
        # What is new has no row of its own: its content places it.
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
    two_tower(hosted, "retrain", "--force")
    versions = {row["version"]: row["state"] for row in json.loads(two_tower(hosted, "model", "list", "--json"))}
    assert versions["first"] == "standby"
    two_tower(hosted, "model", "rollback")
    status = json.loads(two_tower(hosted, "status", "--json"))
    assert status["active_version"] == "first"


def test_exported_files_are_the_towers(hosted: str, tmp_path: Path) -> None:
    two_tower(hosted, "model", "export", tmp_path / "files")
    names = {entry["path"] for entry in json.loads((tmp_path / "files" / "manifest.json").read_text())["files"]}
    assert {"user_tower.onnx", "item_tower.onnx", "weights.safetensors"} <= names


def test_the_way_back_leaves_nothing(hosted: str) -> None:
    migrate.migrate(hosted, to="0")
    with psycopg.connect(hosted, autocommit=True) as db:
        assert one(db, "select to_regnamespace('two_tower')") is None
