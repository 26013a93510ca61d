"""``two-tower model``: the lifecycle of model versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from two_tower.cli.console import Dsn, Json, Verbs, bar, manual, out, print_json, say
from two_tower.cli.options import (
    EmbeddingWorkers,
    Overrides,
    WithUsers,
    gate_limits,
)
from two_tower.metrics import HEADLINE, TITLES
from two_tower.rows import one

if TYPE_CHECKING:
    import psycopg

STATES = """
States: candidate → staged (being backfilled) → active → standby → retired; rejected, where the gate said no.
Refreshes write every version that is staged, active or standby, so a rollback is instant and loses nothing.
"""

app = typer.Typer(
    name="model",
    cls=Verbs,
    no_args_is_help=True,
    help="Register, activate, roll back, retire, export and publish model versions.",
    epilog=STATES.strip(),
)
GATE = "0 done, 1 it failed, 2 wrong usage, 3 the gate said no; after 1 and 3 the model that served keeps serving"

Version = Annotated[str, typer.Argument(help="A model version; see `two-tower model list`.")]
Force = Annotated[bool, typer.Option("--force", help="Go ahead although the gate says no; that is recorded.")]
Url = Annotated[str, typer.Argument(help="file:///path or s3://bucket/prefix, with AWS_* in the environment.")]


@app.command("list", epilog=manual("two-tower model list", "two-tower model list --json"))
def list_(dsn: Dsn = None, json: Json = False) -> None:
    """List every version with its state, coverage, and metrics on held-out likes."""
    from two_tower.lifecycle.registry import versions
    from two_tower.server.reading import reading

    found = reading(dsn, versions, say)
    if json:
        print_json(found)
        return
    table = Table("version", "state", "backfilled", *(TITLES[name] for name in HEADLINE), "registered", "activated")
    for row in found:
        metrics = row["metrics"].get("two-tower", {})
        numbers = ["–" if metrics.get(name) is None else f"{metrics[name]:.4f}" for name in HEADLINE]
        moments = (row["registered_at"], row["activated_at"])
        times = ["" if moment is None else f"{moment:%Y-%m-%d %H:%M}" for moment in moments]
        state = row["state"] + (", forced" if row["forced"] else "") + ("" if row["follows_likes"] else ", given")
        share = "" if row["backfilled"] is None else f"{row['backfilled']:.1%}"
        table.add_row(row["version"], state, share, *numbers, *times)
    out.print(table if found else "no models; train one with `two-tower train`")


@app.command(epilog=manual("two-tower model register exported/", "two-tower model register exported/ --version friday"))
def register(
    directory: Annotated[Path, typer.Argument(help="A directory of `two-tower model export`.")],
    version: Annotated[str | None, typer.Option(help="Another name for it; by default the manifest's.")] = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Register exported files as a candidate.

    Each file is compared with the manifest. The towers must be plain ONNX, and
    reproduce the sample in metrics.json.
    """
    from two_tower.lifecycle import artifacts
    from two_tower.server.connection import connect

    with connect(dsn, autocommit=True, writes=True) as connection:
        name, new = artifacts.register(connection, directory, version)
    if json:
        print_json({"version": name, "registered": new})
    else:
        say(f"{name} is registered" if new else f"{name} was registered already")


@app.command(
    "upload-vectors",
    epilog=manual(
        "two-tower model upload-vectors video_embeddings.parquet --dry-run",
        "two-tower model upload-vectors video_embeddings.parquet --users user_embeddings.parquet --version theirs",
    ),
)
def upload_vectors(
    videos: Annotated[Path, typer.Argument(metavar="FILE", help="Parquet with video_id and embedding, 128 numbers.")],
    users: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Parquet with user_id and embedding; without, nobody has one.")
    ] = None,
    version: Annotated[str | None, typer.Option(help="A name for them; by default the time.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be taken, and change nothing.")] = False,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Make a version from vectors that were computed elsewhere, for `model activate`.

    It has no towers: refreshes and verify skip it, and likes do not change it.
    Deleted users and videos are deleted from it, too.
    """
    from two_tower.lifecycle.given import upload
    from two_tower.server.connection import connect

    with connect(dsn, autocommit=True, writes=not dry_run) as connection, bar() as progress:
        done = upload(connection, videos, users, version, progress, dry_run=dry_run)
    if json:
        print_json(done.as_json() | {"dry_run": dry_run})
        return
    for kind, taken, unknown, without in (
        ("videos", done.videos, done.unknown_videos, done.videos_without),
        ("users", done.users, done.unknown_users, done.users_without),
    ):
        say(f"{taken:,} {kind} with a vector, {without:,} without; {unknown:,} vectors are of nobody that is here")
    say("nothing was changed by this dry run" if dry_run else f"{done.version} is staged; it does not follow likes")


@app.command(epilog=manual("two-tower model backfill friday --workers 4", exits=GATE))
@gate_limits
def backfill(
    version: Version,
    workers: EmbeddingWorkers = 1,
    force: Force = False,
    overrides: Overrides = None,
    dsn: Dsn = None,
) -> None:
    """Compute the vectors that a version lacks, while the active one serves.

    An interrupted backfill continues where it stopped. A candidate whose metrics are
    not good enough is refused.
    """
    from two_tower.lifecycle import registry
    from two_tower.server.connection import connect

    with connect(dsn, autocommit=True, writes=True) as connection, bar() as progress:
        registry.backfill(connection, version, progress, workers=workers, force=force, overrides=overrides)
    say(f"{version} is backfilled")


@app.command(
    epilog=manual("two-tower model activate", "two-tower model activate friday --workers 4", exits=GATE),
)
@gate_limits
def activate(
    version: Annotated[str | None, typer.Argument(help="A version; by default the newest candidate.")] = None,
    workers: EmbeddingWorkers = 1,
    force: Force = False,
    overrides: Overrides = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Make a version the active one, after computing its missing vectors.

    The gate checks that every vector is there and equals what the model computes, that the
    index finds the nearest, and that metrics are no worse than the active model's (for the
    first: popularity's). The switch is one transaction; the previous model stays on standby.
    """
    from two_tower.lifecycle import registry
    from two_tower.server.connection import connect

    with connect(dsn, autocommit=True, writes=True) as connection, bar() as progress:
        result = registry.activate(connection, version, progress, force=force, workers=workers, overrides=overrides)
    _report(result, json)


@app.command(epilog=manual("two-tower model rollback", "two-tower model rollback friday"))
def rollback(
    version: Annotated[str | None, typer.Argument(help="A standby version; else the one that served last.")] = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Go back at once to a version whose vectors are still kept fresh."""
    from two_tower.lifecycle import registry
    from two_tower.server.connection import connect

    with connect(dsn, autocommit=True, writes=True) as connection:
        result = registry.roll_back(connection, version)
    _report(result, json)


@app.command(epilog=manual("two-tower model retire friday"))
def retire(version: Version, dsn: Dsn = None) -> None:
    """Drop the vectors of a staged or standby version; its record stays."""
    from two_tower.server.connection import connect

    with connect(dsn, autocommit=True, writes=True) as connection:
        connection.execute("select two_tower.retire_model(%s)", (version,))
    say(f"{version} is retired")


@app.command(
    epilog=manual(
        "two-tower model export exported/",
        "two-tower model export exported/ --version friday",
        "two-tower model export browser/ --max-video-features 5000",
    )
)
def export(
    directory: Annotated[Path, typer.Argument(help="Where to write the files; made if it is missing.")],
    version: Annotated[str | None, typer.Option(help="A version; by default the active one.")] = None,
    max_video_features: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default="all of the version",
            help="Videos with an input of their own, the most liked first: fewer make a smaller file for a browser.",
        ),
    ] = None,
    without_users: Annotated[bool, typer.Option("--without-users", help="Leave out vectors of users.")] = False,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Write a version's towers, JSON documents and vectors, with a manifest of their hashes.

    With --max-video-features, the user tower knows fewer videos, and its vectors still fit
    the version's own; other videos count only by their tags, performers, ….
    """
    from two_tower.lifecycle import artifacts
    from two_tower.server.reading import reading

    def write(connection: psycopg.Connection[Any]) -> tuple[str, list[Path]]:
        chosen = str(one(connection, "select two_tower.require_model(%s)", (version,)))
        connection.rollback()
        return chosen, artifacts.export(connection, chosen, directory, max_video_features, users=not without_users)

    chosen, written = reading(dsn, write, say)
    size = (directory / "user_tower.onnx").stat().st_size
    if size > artifacts.MUCH_FOR_A_BROWSER:
        say(f"user_tower.onnx has {size / 1e6:.0f} MB; --max-video-features N writes a smaller one for browsers")
    if json:
        print_json({"version": chosen, "files": written})
    else:
        for path in written:
            typer.echo(path)


@app.command(
    epilog=manual(
        "two-tower model publish s3://bucket/prefix",
        "two-tower model publish file:///srv/models --version friday --skip-activate",
        "two-tower model publish s3://bucket/prefix --wasm node_modules/onnxruntime-web/dist",
    )
)
def publish(
    url: Url,
    version: Annotated[str | None, typer.Option(help="A version; by default the active one.")] = None,
    skip_activate: Annotated[
        bool, typer.Option("--skip-activate", help="Upload alone; the same without this makes it the current one.")
    ] = False,
    with_users: WithUsers = False,
    wasm: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Put what onnxruntime-web loads beside it, from its directory dist."),
    ] = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Upload a version's files, and then make it the current one there.

    The files go to URL/VERSION/, and are then copied to URL/current/, the manifest last. A
    published version never changes, and contains user data only on request.
    """
    from two_tower.lifecycle import artifacts
    from two_tower.server.reading import reading

    def put(connection: psycopg.Connection[Any]) -> dict[str, Any]:
        chosen = one(connection, "select two_tower.require_model(%s)", (version,))
        return artifacts.publish(
            connection, chosen, url, progress, users=with_users, runtime=wasm, activate=not skip_activate
        )

    with bar() as progress:
        result = reading(dsn, put, say, autocommit=True)
    chosen = result["version"]
    if json:
        print_json(result)
    elif result["current"]:
        say(f"{chosen} is the current version at {url}; {result['uploaded']} files uploaded")
    else:
        say(f"{chosen} is at {url}, and not current; {result['uploaded']} files uploaded")


@app.command(epilog=manual("two-tower model fetch s3://bucket/prefix", "two-tower model fetch file:///srv/models"))
def fetch(
    url: Url,
    version: Annotated[str | None, typer.Option(help="A version; by default the current one.")] = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Download a published version, verify every file, and register it as a candidate."""
    from two_tower.lifecycle import artifacts
    from two_tower.server.connection import connect

    with connect(dsn, autocommit=True, writes=True) as connection, bar() as progress:
        result = artifacts.fetch(connection, url, version, progress)
    if json:
        print_json(result)
    else:
        say(
            f"{result['version']} is registered"
            if result["registered"]
            else f"{result['version']} was registered already"
        )


def _report(result: dict[str, Any], json: bool) -> None:
    for warning in result.get("warnings", []):
        say(f"warning: {warning}")
    if json:
        print_json(result)
    elif result["changed"]:
        previous = f"; {result['previous']} stands by" if result["previous"] else ""
        say(f"{result['model_version']} is active{previous}")
    else:
        say(f"{result['model_version']} was active already")
