"""Variables of a Supabase project, by the names in its pipelines: database, pooler, storage, certificate."""

from __future__ import annotations

import atexit
import base64
import binascii
import os
import re
import tempfile
from pathlib import Path
from urllib.parse import quote, urlsplit

from two_tower.errors import UserError
from two_tower.settings import Settings

SESSION_PORT = 5432
"""The pooler's port for sessions, which a job of many statements needs."""


def load_env_file(path: Path) -> None:
    """Adds the variables of a ``.env`` file to the environment, unless they are set already. Empty values are ignored.

    Raises UserError if it cannot be read.
    """
    from dotenv import dotenv_values

    try:
        with path.open(encoding="utf-8") as file:
            found = dotenv_values(stream=file, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"cannot read the environment of {path}: {reason}") from error
    for name, value in found.items():
        if value and not os.environ.get(name):
            os.environ[name] = value


def remote_database(settings: Settings | None = None) -> str | None:
    """The remote database: ``REMOTE_DATABASE_URL``, ``SUPABASE_DB_URL``, or the project's pooler with its password.

    None if none of them is set. Raises UserError if there is a password without the other variables of the pooler.
    """
    settings = settings or Settings()
    for given in (settings.remote_database_url, settings.supabase_db_url):
        if given:
            return given.get_secret_value()
    if settings.supabase_db_password is None:
        return None
    project = _project(settings)
    host = settings.supabase_pooler_host
    if project is None or not (host or settings.supabase_region):
        raise UserError(
            "SUPABASE_DB_PASSWORD alone says no database",
            "set SUPABASE_PROJECT_ID, and SUPABASE_REGION or SUPABASE_POOLER_HOST; or REMOTE_DATABASE_URL",
        )
    if not host:
        region = str(settings.supabase_region)
        host = f"{region if region.startswith('aws-') else 'aws-0-' + region}.pooler.supabase.com"
    password = quote(settings.supabase_db_password.get_secret_value(), safe="")
    port = settings.supabase_pooler_port or SESSION_PORT
    return f"postgresql://postgres.{project}:{password}@{host}:{port}/postgres"


def _project(settings: Settings) -> str | None:
    if settings.supabase_project_id:
        return settings.supabase_project_id
    host = urlsplit(settings.supabase_url or "").hostname or ""
    return host.partition(".")[0] if host.endswith(".supabase.co") else None


def trust_certificate(settings: Settings | None = None) -> None:
    """Makes libpq trust ``SUPABASE_CA_CERT``, a certificate or its Base64, unless ``PGSSLROOTCERT`` is set.

    Connections are then fully verified unless their URL says otherwise. The file is deleted when the program ends.
    Raises UserError if it is no certificate.
    """
    settings = settings or Settings()
    if settings.supabase_ca_cert is None or os.environ.get("PGSSLROOTCERT"):
        return
    text = settings.supabase_ca_cert.get_secret_value().strip()
    if "-----BEGIN" not in text:
        try:
            text = base64.b64decode("".join(text.split()), validate=True).decode("ascii")
        except (binascii.Error, UnicodeDecodeError):
            text = ""
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise UserError(
            "SUPABASE_CA_CERT is no certificate",
            "set it to what `base64 -w0 supabase-ca.crt` prints, or to the file's text",
        )
    descriptor, name = tempfile.mkstemp(prefix="supabase-ca-", suffix=".crt")
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
    atexit.register(Path(name).unlink, missing_ok=True)
    os.environ["PGSSLROOTCERT"] = name
    os.environ["PGSSLMODE"] = os.environ.get("PGSSLMODE") or "verify-full"


def storage(settings: Settings | None = None) -> dict[str, str]:
    """Settings of an S3 client for the project's storage with ``SUPABASE_SERVICE_ROLE_KEY``; empty without that key.

    The key is a session token; the others only name the project (https://supabase.com/docs/guides/storage/s3).
    """
    settings = settings or Settings()
    if not settings.supabase_url or settings.supabase_service_role_key is None:
        return {}
    token = settings.supabase_service_role_key.get_secret_value()
    anonymous = settings.supabase_anon_key
    return {
        "endpoint": settings.supabase_url.rstrip("/") + "/storage/v1/s3",
        "region": re.sub(r"^aws-\d+-", "", settings.supabase_region or "us-east-1"),
        "access_key_id": _project(settings) or "project",
        "secret_access_key": anonymous.get_secret_value() if anonymous else token,
        "session_token": token,
    }
