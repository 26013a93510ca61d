"""What the environment says: real variables first, then a ``.env`` file in the working directory."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """``DATABASE_URL``, and ``TWO_TOWER_*`` for the rest. Other variables in ``.env`` are other programs' business."""

    model_config = SettingsConfigDict(env_prefix="TWO_TOWER_", env_file=".env", env_ignore_empty=True, extra="ignore")

    database_url: str | None = Field(default=None, validation_alias="DATABASE_URL")
    pg_bindir: Path | None = None
    """Directory of ``postgres``, ``initdb`` and ``pg_config``, where the newest that is found is not the one wanted."""
    server_packages: Path | None = None
    """Directory that the embedded server's Python imports numpy and onnxruntime from, in place of its own."""
