"""A Supabase project's variables for database, storage and certificate, and files with them."""

from __future__ import annotations

import base64
import itertools
import os
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict
from typer.testing import CliRunner

from two_tower import supabase
from two_tower.cli.main import app
from two_tower.errors import UserError
from two_tower.lifecycle import artifacts
from two_tower.server.connection import near_or_remote, resolve_dsn

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Removes the variables, and changes to a directory without ``.env``."""
    for name in list(os.environ):
        if name.startswith(("SUPABASE_", "NEXT_PUBLIC_", "AWS_", "PGSSL", "SYNC_")) or name.endswith("DATABASE_URL"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("project", "host", "port"),
    list(
        itertools.product(
            (
                {"SUPABASE_PROJECT_ID": "abcd"},
                {"SUPABASE_PROJECT_REF": "abcd"},
                {"SUPABASE_URL": "https://abcd.supabase.co"},
                {"NEXT_PUBLIC_SUPABASE_URL": "https://abcd.supabase.co/"},
            ),
            (
                ({"SUPABASE_REGION": "aws-1-ap-northeast-1"}, "aws-1-ap-northeast-1.pooler.supabase.com"),
                ({"SUPABASE_REGION": "eu-west-1"}, "aws-0-eu-west-1.pooler.supabase.com"),
                ({"SUPABASE_POOLER_HOST": "pooler.example"}, "pooler.example"),
                ({"SUPABASE_POOLER_HOST": "pooler.example", "SUPABASE_REGION": "eu-west-1"}, "pooler.example"),
            ),
            (({}, "5432"), ({"SUPABASE_POOLER_PORT": "6543"}, "6543")),
        )
    ),
)
def test_the_poolers_url_is_built_from_the_projects_variables(
    monkeypatch: pytest.MonkeyPatch,
    project: dict[str, str],
    host: tuple[dict[str, str], str],
    port: tuple[dict[str, str], str],
) -> None:
    given(monkeypatch, **project, **host[0], **port[0], SUPABASE_DB_PASSWORD="p@ss/w:rd%ü")
    dsn = supabase.remote_database()
    assert dsn is not None
    found = conninfo_to_dict(dsn)
    assert (found["user"], found["password"], found["dbname"]) == ("postgres.abcd", "p@ss/w:rd%ü", "postgres")
    assert (found["host"], str(found["port"])) == (host[1], port[1])


def test_remote_databases_are_used_only_by_verbs_meant_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert supabase.remote_database() is None
    assert near_or_remote() is None
    given(monkeypatch, SUPABASE_DB_PASSWORD="secret")
    with pytest.raises(UserError, match="says no database"):
        supabase.remote_database()
    given(monkeypatch, SUPABASE_PROJECT_ID="abcd", SUPABASE_REGION="eu-west-1")
    assert "pooler" in str(near_or_remote())
    for name in ("SUPABASE_DB_URL", "REMOTE_DATABASE_URL", "DATABASE_URL"):
        with pytest.raises(UserError, match="no database"):
            resolve_dsn()  # any other verb
        given(monkeypatch, **{name: f"postgresql://{name.lower().replace('_', '-')}/app"})
        assert near_or_remote() == f"postgresql://{name.lower().replace('_', '-')}/app"
    assert resolve_dsn() == "postgresql://database-url/app"


@pytest.mark.parametrize("text", [CERTIFICATE, base64.b64encode(CERTIFICATE.encode()).decode()], ids=["pem", "base64"])
def test_the_certificate_is_trusted_and_verified(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    given(monkeypatch, SUPABASE_CA_CERT=text, PGSSLROOTCERT="", PGSSLMODE="")
    supabase.trust_certificate()
    path = Path(os.environ["PGSSLROOTCERT"])
    assert path.read_text().strip() == CERTIFICATE.strip()
    assert path.stat().st_mode & 0o077 == 0
    assert os.environ["PGSSLMODE"] == "verify-full"
    given(monkeypatch, PGSSLROOTCERT="own.crt", PGSSLMODE="require")
    supabase.trust_certificate()
    assert (os.environ["PGSSLROOTCERT"], os.environ["PGSSLMODE"]) == ("own.crt", "require")


@pytest.mark.parametrize("text", ["nonsense", "bm9uc2Vuc2U=", "-----BEGIN PRIVATE KEY-----\nxx"])
def test_an_invalid_certificate_is_an_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    given(monkeypatch, SUPABASE_CA_CERT=text)
    with pytest.raises(UserError, match="is no certificate"):
        supabase.trust_certificate()
    assert "PGSSLROOTCERT" not in os.environ


def test_the_projects_storage_is_used_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert supabase.storage() == {}
    given(monkeypatch, SUPABASE_URL="https://abcd.supabase.co/", SUPABASE_SERVICE_ROLE_KEY="service")
    given(monkeypatch, SUPABASE_REGION="aws-1-ap-northeast-1", SUPABASE_ANON_KEY="anonymous")
    assert supabase.storage() == {
        "endpoint": "https://abcd.supabase.co/storage/v1/s3",
        "region": "ap-northeast-1",
        "access_key_id": "abcd",
        "secret_access_key": "anonymous",
        "session_token": "service",
    }
    config = artifacts._store("s3://models/two-tower").config
    assert config["endpoint"] == "https://abcd.supabase.co/storage/v1/s3"
    assert "service" not in repr(artifacts._store("s3://models/two-tower"))
    given(monkeypatch, AWS_ENDPOINT_URL="http://127.0.0.1:1", AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b")
    assert artifacts._store("s3://models/two-tower").config["endpoint"] == "http://127.0.0.1:1"


def test_env_files_set_only_missing_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "first.env").write_text(
        "# production\nexport SUPABASE_REGION=first\nSUPABASE_URL='with blanks in it'\nPGSSLMODE=\n"
        "SUPABASE_PROJECT_ID=own$x\n",
        encoding="utf-8",
    )
    (tmp_path / "second.env").write_text("SUPABASE_REGION=second\nPGSSLMODE=require\n")
    given(monkeypatch, SUPABASE_PROJECT_ID="from outside", SUPABASE_REGION="", SUPABASE_URL="", PGSSLMODE="")
    for name in ("first.env", "second.env"):
        supabase.load_env_file(tmp_path / name)
    found = [os.environ[n] for n in ("SUPABASE_PROJECT_ID", "SUPABASE_REGION", "SUPABASE_URL", "PGSSLMODE")]
    assert found == ["from outside", "first", "with blanks in it", "require"]


@pytest.mark.parametrize("where", ["before", "after", "variable"])
def test_an_env_file_can_name_the_database_of_a_verb(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    (tmp_path / "far.env").write_text("REMOTE_DATABASE_URL=postgresql://127.0.0.1:1/nothing\n")
    given(monkeypatch, REMOTE_DATABASE_URL="", SYNC_VIDEO_ENV_FILE="far.env" if where == "variable" else "")
    words = ["sync-videos", "--mode", "embeddings"]
    option = ["--env-file", "far.env"]
    words = {"before": [*option, *words], "after": [*words, *option], "variable": words}[where]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert "port 1 failed" in done.output, done.output
    missing = CliRunner().invoke(app, ["--env-file", "missing.env", *words])
    assert missing.exit_code == 2
    assert "cannot read the environment" in missing.output
