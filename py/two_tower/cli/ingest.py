"""``two-tower ingest`` and ``two-tower sync-videos``: products from an API, and the daily job that begins with them."""

from __future__ import annotations

import json as jsonlib
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from two_tower.cli.console import Dsn, Json, Verbs, bar, echo_json, manual, say, told_of_failure, write_text
from two_tower.cli.options import Mail, SummaryOption, Webhook, env_file
from two_tower.errors import UserError

if TYPE_CHECKING:
    from two_tower.data.catalogue_api import IngestOptions, IngestSummary
    from two_tower.lifecycle.sync_videos import SyncSummary

app = typer.Typer()
ingest_app = typer.Typer(name="ingest", cls=Verbs, no_args_is_help=True, help="Read a catalogue from an API.")
app.add_typer(ingest_app)

SinceOption = Annotated[
    datetime | None,
    typer.Option(
        "--since",
        "--start-date",
        envvar="GTE_RELEASE_DATE",
        formats=["%Y-%m-%d"],
        show_default=False,
        help="First day of release; Japan's days.",
    ),
]
UntilOption = Annotated[
    datetime | None,
    typer.Option(
        "--until",
        "--end-date",
        envvar="LTE_RELEASE_DATE",
        formats=["%Y-%m-%d"],
        show_default=False,
        help="Last day of release.",
    ),
]
LookBackOption = Annotated[
    int,
    typer.Option(
        "--look-back",
        "--lookback-days",
        envvar="SYNC_VIDEO_LOOKBACK_DAYS",
        min=0,
        help="Days back from today, where --since is not given.",
    ),
]
FloorOption = Annotated[
    list[str] | None,
    typer.Option("--floor", metavar="SITE/SERVICE/FLOOR", show_default=False, help="By default FANZA/digital/videoa."),
]
PauseOption = Annotated[float, typer.Option(min=0.0, help="Seconds between requests.")]
AttemptsOption = Annotated[int, typer.Option(min=1, help="Times that a page is asked for.")]
IngestRejects = Annotated[
    Path | None, typer.Option(show_default=False, help="Report of rejected products; else dmm.rejects.csv.")
]


@ingest_app.command(
    "dmm",
    epilog=manual(
        "two-tower ingest dmm",
        "two-tower ingest dmm --since 2026-11-01 --until 2026-11-07 --floor FANZA/digital/videoa",
    ),
)
def ingest_dmm(
    floors: FloorOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    look_back: LookBackOption = 3,
    everything: Annotated[bool, typer.Option("--all", help="From the first day on, whatever the look-back.")] = False,
    pause: PauseOption = 1.0,
    attempts: AttemptsOption = 6,
    rejects: IngestRejects = None,
    summary: SummaryOption = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Insert and update videos from the DMM/FANZA affiliate API.

    Takes DMM_API_ID and DMM_AFFILIATE_ID in the environment or .env, and
    DMM_LINK_AFFILIATE_ID for affiliate links.
    """
    from two_tower.data.catalogue_api import ingest
    from two_tower.data.dmm import DEFAULT_FLOOR, Dmm, floor
    from two_tower.server.connection import connect

    source = Dmm.from_settings()
    sections = [floor(text) for text in floors or [DEFAULT_FLOOR]]
    options = _ingest_options(since, until, None if everything else look_back, pause, attempts, rejects)
    with connect(dsn, autocommit=True, writes=True) as connection, bar() as progress:
        done = ingest(connection, source, sections, options, say, progress)
    if summary:
        write_text(summary, done.to_json() + "\n")
    if json:
        echo_json(done.to_json())
    else:
        typer.echo(describe_ingest(done))


def _ingest_options(
    since: datetime | None,
    until: datetime | None,
    look_back: int | None,
    pause: float,
    attempts: int,
    rejects: Path | None = None,
) -> IngestOptions:
    from two_tower.data.catalogue_api import IngestOptions

    first = since.date() if since else None
    if first is None and look_back is not None:
        first = today_in_japan() - timedelta(days=look_back)
    last = until.date() if until else None
    if first and last and first > last:
        raise typer.BadParameter("ends before it begins", param_hint="--until")
    return IngestOptions(first, last, pause=pause, attempts=attempts, rejects=rejects)


def today_in_japan() -> date:
    """Today's date in Japan, from which the API's dates are counted."""
    return (datetime.now(UTC) + timedelta(hours=9)).date()


def describe_ingest(done: IngestSummary) -> str:
    """The summary in words."""
    lines = [f"{done.source}: {done.seconds:.1f} s"]
    for told in done.sections:
        lines.append(
            f"  {told.section}: {told.items:,} products on {told.pages:,} pages; {told.inserted:,} were inserted,"
            f" {told.updated:,} updated, {told.unchanged:,} unchanged"
        )
        for count, what in (
            (told.rejected, f"rejected: see {done.rejects}"),
            (told.missing, "counted by the API and not shown"),
            (told.retries, "requests made again"),
        ):
            if count:
                lines.append(f"    {count:,} {what}")
    return "\n".join(lines)


@app.command(
    "sync-videos",
    epilog=manual(
        "two-tower sync-videos --model s3://bucket/prefix",
        "two-tower sync-videos --skip-fetch --look-back 7",
        "two-tower sync-videos --env-file production.env --output-root syncs",
        exits="0 done, 1 a step failed, a gate's no included (the others were done), 2 wrong usage",
    ),
)
def sync_videos(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            envvar="MODEL_URL",
            metavar="URL",
            show_default=False,
            help="Where models are published: file:// or s3://.",
        ),
    ] = None,
    mode: Annotated[
        Literal["full", "embeddings"],
        typer.Option(help="Everything, or what lacks a vector alone: as --skip-fetch --skip-ingest."),
    ] = "full",
    floors: FloorOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    look_back: LookBackOption = 3,
    pause: PauseOption = 1.0,
    attempts: AttemptsOption = 6,
    skip_fetch: Annotated[bool, typer.Option("--skip-fetch", help="Keep the model.")] = False,
    skip_ingest: Annotated[bool, typer.Option("--skip-ingest", help="Ask no API.")] = False,
    skip_embed: Annotated[bool, typer.Option("--skip-embed", help="Compute no vectors.")] = False,
    output_root: Annotated[
        Path | None,
        typer.Option(
            envvar="SYNC_VIDEO_OUTPUT_ROOT",
            metavar="DIR",
            help="Gets runs/TIME/ with summary.json and model_meta.json, and latest, a link to the newest.",
        ),
    ] = None,
    webhook: Webhook = None,
    mail: Mail = None,
    env_files: Annotated[list[Path] | None, env_file("SYNC_VIDEO_ENV_FILE")] = None,
    summary: SummaryOption = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Fetch the published model, ingest recent products, compute missing vectors: the daily job.

    The model is activated if it is new and passes its gate. If a step fails, the others
    still run. The database may also be given by REMOTE_DATABASE_URL, or by a Supabase
    project's variables (docs/configuration.md).
    """
    from two_tower.data.catalogue_api import ingest
    from two_tower.data.dmm import DEFAULT_FLOOR, Dmm, floor
    from two_tower.lifecycle.sync_videos import sync_videos as run
    from two_tower.notify import channels
    from two_tower.rows import one
    from two_tower.server.connection import connect, near_or_remote
    from two_tower.supabase import trust_certificate
    from two_tower.trainer.runs import name_by_time, run_directory

    skip_fetch, skip_ingest = skip_fetch or mode == "embeddings", skip_ingest or mode == "embeddings"
    if not skip_fetch and not model:
        raise typer.BadParameter("say from where, or --skip-fetch", param_hint="--model")
    source = None if skip_ingest else Dmm.from_settings()
    sections = [floor(text) for text in floors or [DEFAULT_FLOOR]]
    options = _ingest_options(since, until, look_back, pause, attempts)
    trust_certificate()
    tell_to = channels(webhook, mail)
    began = datetime.now(UTC) + timedelta(hours=9)
    where: AbstractContextManager[Path | None] = nullcontext()
    if output_root:
        where = run_directory(output_root, name_by_time(output_root, began, "JST"))
    with (
        told_of_failure(tell_to, "syncing videos"),
        where as kept,
        connect(dsn or near_or_remote(), autocommit=True, writes=True) as connection,
        bar() as progress,
    ):

        def step() -> IngestSummary:
            assert source is not None
            return ingest(connection, source, sections, options, say, progress)

        done = run(
            connection,
            model_url=None if skip_fetch else model,
            ingest=step if source else None,
            embed=not skip_embed,
            progress=progress,
        )
        if kept:
            write_text(kept / "summary.json", done.to_json() + "\n")
            meta = one(connection, "select (select meta from two_tower.models where state = 'active')")
            write_text(kept / "model_meta.json", jsonlib.dumps(meta, indent=2, ensure_ascii=False) + "\n")
    for warning in tell_to.tell(*described_sync(done)):
        say(f"warning: {warning}")
    if summary:
        write_text(summary, done.to_json() + "\n")
    if json:
        echo_json(done.to_json())
    else:
        if done.model:
            say(f"model {done.model['version']}: " + ("activated" if done.model["activated"] else "nothing new"))
        if done.ingest:
            typer.echo(describe_ingest(done.ingest))
        if done.embeddings:
            say(", ".join(f"{name}: {value}" for name, value in done.embeddings.items()))
    if done.errors:
        raise UserError("; ".join(f"{step} failed: {why}" for step, why in done.errors.items()))


def described_sync(done: SyncSummary) -> tuple[str, str]:
    """A subject and a sentence for notifications."""
    parts = []
    if done.model:
        parts.append(f"model {done.model['version']} " + ("is active now" if done.model["activated"] else "is not new"))
    if done.ingest:
        inserted, updated = (sum(getattr(s, n) for s in done.ingest.sections) for n in ("inserted", "updated"))
        parts.append(f"{inserted:,} videos inserted, {updated:,} updated")
    if done.embeddings:
        parts.append(f"{done.embeddings['vectors']:,} vectors written")
    parts += [f"{step} failed: {why}" for step, why in done.errors.items()]
    subject = "two-tower: syncing videos failed" if done.errors else "two-tower: videos are synced"
    head = "Syncing videos failed" if done.errors else "Videos are synced"
    return subject, "; ".join([head, *parts, f"{done.seconds:.0f} s"]) + "."
