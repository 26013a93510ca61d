"""``two-tower pull``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from two_tower.cli.console import Dsn, Json, bar, echo_json, manual, say, write_text
from two_tower.cli.options import SummaryOption
from two_tower.errors import UserError

if TYPE_CHECKING:
    from two_tower.data.pull import PullSummary

app = typer.Typer()

LEAST_KEY = 16
"""Characters. A shorter key can be guessed."""


@app.command(
    epilog=manual(
        "two-tower pull --from 'postgresql://reader@db.example/app?sslmode=verify-full'",
        "TWO_TOWER_PULL_FROM=… two-tower pull --anonymise --summary pulled.json",
    )
)
def pull(
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="URL",
            show_default=False,
            help="PostgreSQL to copy from, such as a Supabase; read only. Else TWO_TOWER_PULL_FROM, or the "
            "project's variables.",
        ),
    ] = None,
    anonymise: Annotated[
        bool, typer.Option("--anonymise", help="Hash ids of users with the key in TWO_TOWER_ANONYMISE_KEY.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete what the source lacks, even if it did not come from there.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    summary: SummaryOption = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Copy catalogue, users, decisions and reviews from another database; later runs copy only changes.

    It reads one read-only snapshot, and works through a transaction pooler. Rows that no
    longer exist at the source are deleted here if the last pull was from the same source;
    otherwise nothing is done without --replace.
    """
    from two_tower.data.pull import pull as run
    from two_tower.server.connection import connect
    from two_tower.settings import Settings
    from two_tower.supabase import remote_database, trust_certificate

    settings = Settings()
    if source is None:
        source = settings.pull_from.get_secret_value() if settings.pull_from else remote_database(settings)
    if source is None:
        raise typer.BadParameter(
            "say from where, or set TWO_TOWER_PULL_FROM or REMOTE_DATABASE_URL", param_hint="--from"
        )
    trust_certificate(settings)
    key = None
    if anonymise:
        secret = settings.anonymise_key
        key = secret.get_secret_value().encode() if secret else b""
        if len(key) < LEAST_KEY:
            raise UserError(
                f"--anonymise takes a key of at least {LEAST_KEY} characters in TWO_TOWER_ANONYMISE_KEY",
                "make one with `openssl rand -hex 32`, and keep it: with another one everybody is somebody else",
            )
    with connect(dsn, autocommit=True, writes=True) as connection, bar() as progress:
        done = run(connection, source, key=key, replace=replace, dry_run=dry_run, say=say, progress=progress)
    if summary:
        write_text(summary, done.to_json() + "\n")
    if json:
        echo_json(done.to_json())
    else:
        typer.echo(describe_pull(done))


def describe_pull(done: PullSummary) -> str:
    """The summary in words."""
    verb = "would be" if done.dry_run else "were"
    lines = [f"{done.source}: {done.bytes:,} bytes in {done.seconds:.1f} s"]
    for name, told in done.tables.items():
        line = f"  {name}: {told.rows:,} rows, {told.copied:,} copied"
        changes = [(told.inserted, "inserted"), (told.updated, "updated"), (told.deleted, "deleted")]
        if any(count for count, _ in changes):
            line += f"; {verb} " + ", ".join(f"{count:,} {what}" for count, what in changes if count)
        if told.orphans:
            line += f"; {told.orphans:,} refer to what the source does not have, and are left out"
        if told.incomplete:
            line += f"; {told.incomplete:,} lack what such a row must have, and are left out"
        lines.append(line)
    return "\n".join(lines)
