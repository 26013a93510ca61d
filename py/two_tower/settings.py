"""What the environment says: real variables first, then a ``.env`` file in the working directory."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """``DATABASE_URL``, and ``TWO_TOWER_*`` for the rest. Other variables in ``.env`` are other programs' business."""

    model_config = SettingsConfigDict(env_prefix="TWO_TOWER_", env_file=".env", env_ignore_empty=True, extra="ignore")

    database_url: str | None = Field(default=None, validation_alias="DATABASE_URL")
    pg_bindir: Path | None = None
    """Directory of ``postgres``, ``initdb`` and ``pg_config``, where the newest that is found is not the one wanted."""
    webhook: str | None = None
    """URL that ``two-tower retrain`` tells how it went. A secret: whoever has it can write to the channel."""
    server_packages: Path | None = None
    """Directory that the embedded server's Python imports numpy and onnxruntime from, in place of its own."""
    ui_read_only: bool = False
    """Whether the page of ``two-tower ui`` leaves out everything that changes something."""
    pull_from: SecretStr | None = None
    """What ``two-tower pull`` copies from: a connection string, which a command line would show to others."""
    anonymise_key: SecretStr | None = None
    """What ``two-tower pull --anonymise`` hashes ids of users with."""
    dmm_api_id: SecretStr | None = Field(default=None, validation_alias="DMM_API_ID")
    dmm_affiliate_id: SecretStr | None = Field(default=None, validation_alias="DMM_AFFILIATE_ID")
    """The affiliate id that the API asks for; its last three digits are 990 to 999."""
    dmm_link_affiliate_id: SecretStr | None = Field(default=None, validation_alias="DMM_LINK_AFFILIATE_ID")
    """The affiliate id that links to products carry."""
    dmm_endpoint: str = "https://api.dmm.com/affiliate/v3/"
