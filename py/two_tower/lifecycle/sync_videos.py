"""``two-tower sync-videos``, the daily job: the current model, new products, their vectors."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import psycopg

from two_tower.data.catalogue_api import IngestSummary
from two_tower.errors import UserError
from two_tower.progress import Progress
from two_tower.rows import one

Connection = psycopg.Connection[Any]


@dataclass
class SyncSummary:
    """The result of each step; None if it was skipped."""

    model: dict[str, Any] | None = None
    ingest: IngestSummary | None = None
    embeddings: dict[str, Any] | None = None
    errors: dict[str, str] = field(default_factory=dict)
    """Step → why it failed."""
    seconds: float = 0.0

    def to_json(self) -> str:
        """The summary as a JSON object."""
        return json.dumps(asdict(self), default=str, indent=2, ensure_ascii=False)


def sync_videos(
    connection: Connection,
    *,
    model_url: str | None,
    ingest: Callable[[], IngestSummary] | None,
    embed: bool = True,
    progress: Progress = lambda _what, _share: None,
) -> SyncSummary:
    """Fetches and activates the model at ``model_url`` if it is new, runs ``ingest``, embeds missing or stale videos.

    A failed step does not keep the next from running: imported videos are embedded even while the API is down.
    ``connection`` is in autocommit mode.
    """
    started = time.monotonic()
    summary = SyncSummary()

    def attempt(step: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except UserError as error:
            summary.errors[step] = error.message
        except psycopg.Error as error:
            if connection.closed:
                raise
            summary.errors[step] = str(error).strip()
        return None

    if model_url:
        summary.model = attempt("model", lambda: _fetch(connection, model_url, progress))
    if ingest:
        summary.ingest = attempt("ingest", ingest)
    if embed:
        progress("embedding", 0.0)
        summary.embeddings = attempt("embeddings", lambda: _embed(connection))
    summary.seconds = round(time.monotonic() - started, 3)
    return summary


def _fetch(connection: Connection, url: str, progress: Progress) -> dict[str, Any]:
    from two_tower.lifecycle import artifacts, registry

    done = artifacts.fetch(connection, url, None, progress)
    state = one(connection, "select state from two_tower.model_versions where version = %s", [done["version"]])
    # A standby version that has served before was replaced on purpose.
    done["activated"] = state in ("candidate", "staged")
    if done["activated"]:
        registry.activate(connection, done["version"], progress)
    return done


def _embed(connection: Connection) -> dict[str, Any]:
    return dict(one(connection, "select two_tower.sync_video_embeddings()"))
