"""Settings from the environment: real variables first, then a ``.env`` file in the working directory."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """``DATABASE_URL``, ``TWO_TOWER_*`` and some others. Other lines of ``.env`` are ignored."""

    model_config = SettingsConfigDict(env_prefix="TWO_TOWER_", env_file=".env", env_ignore_empty=True, extra="ignore")

    database_url: str | None = Field(default=None, validation_alias="DATABASE_URL")
    database_read_url: str | None = Field(default=None, validation_alias="DATABASE_READ_URL")
    """A replica of ``DATABASE_URL`` for operations that only read (:mod:`two_tower.server.reading`)."""
    pg_bindir: Path | None = None
    """Directory of ``postgres``, ``initdb`` and ``pg_config``, if the newest that is found is not the right one."""
    webhook: str | None = None
    """URL to which runs report their outcome. A secret: whoever has it can write to the channel."""
    mail_to: str | None = None
    """Addresses, separated by commas, to which runs send mail."""
    mail_from: str | None = None
    smtp: SecretStr | None = None
    """The mail server, ``smtp://user:password@host:587`` or ``smtps://…``."""
    server_packages: Path | None = None
    """Directory from which the embedded server's Python imports numpy and onnxruntime, in place of its own."""
    shards: SecretStr | None = None
    """``NAME=URL`` of each of several servers that share a catalogue, separated by spaces or lines; the first publishes
    it. A secret, since URLs may contain passwords."""
    ui_read_only: bool = False
    """Whether the page of ``two-tower ui`` has no actions that change anything."""
    pull_from: SecretStr | None = None
    """Connection string of the database that ``two-tower pull`` copies; a command line would show it to others."""
    anonymise_key: SecretStr | None = None
    """Key with which ``two-tower pull --anonymise`` hashes user ids."""
    dmm_api_id: SecretStr | None = Field(default=None, validation_alias=AliasChoices("DMM_API_ID", "FANZA_API_ID"))
    dmm_affiliate_id: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("DMM_AFFILIATE_ID", "FANZA_API_AFFILIATE_ID")
    )
    """The affiliate id that the API requires; its last three digits are 990 to 999."""
    dmm_link_affiliate_id: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("DMM_LINK_AFFILIATE_ID", "FANZA_LINK_AFFILIATE_ID")
    )
    """The affiliate id in links to products."""
    remote_database_url: SecretStr | None = Field(default=None, validation_alias="REMOTE_DATABASE_URL")
    """The remote database that ``pull`` copies and ``sync-videos`` works on, unless another is given."""
    supabase_db_url: SecretStr | None = Field(default=None, validation_alias="SUPABASE_DB_URL")
    supabase_db_password: SecretStr | None = Field(default=None, validation_alias="SUPABASE_DB_PASSWORD")
    supabase_url: str | None = Field(
        default=None, validation_alias=AliasChoices("SUPABASE_URL", "NEXT_PUBLIC_SUPABASE_URL")
    )
    supabase_project_id: str | None = Field(
        default=None, validation_alias=AliasChoices("SUPABASE_PROJECT_ID", "SUPABASE_PROJECT_REF")
    )
    supabase_region: str | None = Field(default=None, validation_alias="SUPABASE_REGION")
    supabase_pooler_host: str | None = Field(default=None, validation_alias="SUPABASE_POOLER_HOST")
    supabase_pooler_port: int | None = Field(default=None, validation_alias="SUPABASE_POOLER_PORT")
    supabase_ca_cert: SecretStr | None = Field(default=None, validation_alias="SUPABASE_CA_CERT")
    supabase_service_role_key: SecretStr | None = Field(default=None, validation_alias="SUPABASE_SERVICE_ROLE_KEY")
    supabase_anon_key: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("SUPABASE_ANON_KEY", "NEXT_PUBLIC_SUPABASE_ANON_KEY")
    )
    dmm_endpoint: str = "https://api.dmm.com/affiliate/v3/"
