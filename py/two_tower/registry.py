"""Registering trained models, and moving them through their lifecycle. The rules are the database's; this drives it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from two_tower.errors import UserError
from two_tower.features import DIM, SCHEMA_VERSION

if TYPE_CHECKING:
    from two_tower.features import TrainingData
    from two_tower.train import TrainedModel

Connection = psycopg.Connection[Any]
Progress = Callable[[str, float], None]
"""Called with what is being done and the share of it done, 0 to 1."""


def new_version(connection: Connection) -> str:
    """A version that is not taken yet: the time in UTC, to the second, with a number where that is not enough."""
    stem = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    taken = {v for (v,) in connection.execute("select version from two_tower.model_versions")}
    return next(v for n in range(len(taken) + 1) if (v := f"{stem}.{n}" if n else stem) not in taken)


def meta(version: str, model: TrainedModel, data: TrainingData) -> dict[str, Any]:
    """``model_meta.json``: what the model is, and what it was made of."""
    import numpy as np

    schema = model.schema
    return {
        "version": version,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "dim": DIM,
        "input_schema_version": SCHEMA_VERSION,
        "sizes": {
            "user_dim": schema.user_dim,
            "item_dim": schema.item_dim,
            "vocabularies": {name: len(keys) for name, keys in schema.vocabularies.items()},
        },
        "hyperparameters": model.hyperparameters,
        "metrics": model.metrics.get("two-tower", {}),
        "training_data": {
            "users": data.n_users,
            "videos": data.n_items,
            "interactions": len(data.user),
            **{name: int(np.sum(data.label == label)) for name, label in (("likes", 1), ("nopes", 0), ("skips", -1))},
        },
    }


def register(connection: Connection, model: TrainedModel, data: TrainingData, version: str | None = None) -> str:
    """Export ``model`` and register it as a candidate; its version. Raises psycopg.Error where it is refused."""
    from two_tower.export import export_towers

    version = version or new_version(connection)
    user_tower, item_tower, weights = export_towers(model)
    vocabularies = {name: list(keys) for name, keys in model.schema.vocabularies.items()}
    documents = (model.schema.to_json(), model.normalizer(), vocabularies, model.metrics, meta(version, model, data))
    connection.execute(
        "select two_tower.register_model(%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (version, user_tower, item_tower, *(Jsonb(_plain(document)) for document in documents), weights),
    )
    return version


def _plain(document: Any) -> Any:
    """The document with NaN as null, which is how JSON can say that there was nothing to measure."""
    return json.loads(json.dumps(document), parse_constant=lambda _: None)


def versions(connection: Connection) -> list[dict[str, Any]]:
    """Every version with its state, newest last."""
    cursor = connection.cursor(row_factory=dict_row)
    return cursor.execute("select * from two_tower.models order by registered_at, version").fetchall()


def newest(connection: Connection) -> str:
    """The version registered last."""
    row = connection.execute("select version from two_tower.model_versions order by number desc limit 1").fetchone()
    if row is None:
        raise UserError("there is no model", "train one with `two-tower train`")
    return str(row[0])


def newest_candidate(connection: Connection) -> str:
    """The version that ``model activate`` means when it is told none."""
    row = connection.execute(
        """select version from two_tower.model_versions
        where state in ('candidate', 'staged') order by number desc limit 1"""
    ).fetchone()
    if row is None:
        raise UserError(
            "there is no candidate to activate", "train one with `two-tower train`, or name a standby version"
        )
    return str(row[0])


def refresh(connection: Connection, progress: Progress) -> dict[str, int]:
    """Drain the change log in batches; counts of what was done. ``connection`` is in autocommit mode."""
    done = {"users": 0, "videos": 0, "vectors": 0, "failed": 0}
    after = None
    connection.execute("select two_tower.requeue_failures()")
    total = max(_pending(connection), 1)
    while True:
        row = connection.execute("select result, last_id from two_tower.refresh_batch(%s)", (after,)).fetchone()
        assert row is not None
        result, last = row
        done = {name: count + result[name] for name, count in done.items()}
        total = max(total, done["users"] + done["videos"])
        progress("refreshing", (done["users"] + done["videos"]) / total)
        if result["videos"] == 0:
            if last is None:
                return done
            after = last


def _pending(connection: Connection) -> int:
    # Users that follow from changed videos are in the log only once the videos are done.
    row = connection.execute(
        """select (select count(distinct user_id) from two_tower.user_changes)
            + (select count(distinct video_id) from two_tower.video_changes)"""
    ).fetchone()
    assert row is not None
    return int(row[0])


def backfill(connection: Connection, version: str, progress: Progress) -> None:
    """Stage ``version`` and compute the vectors it lacks, batch by batch; call again to resume."""
    connection.execute("select two_tower.require_model(%s), two_tower.stage_model(%s)", (version, version))
    row = connection.execute(
        """select
            (select count(*) from public.videos)
                - (select count(*) from two_tower.video_embeddings where model_version = %(v)s),
            (select count(*) from public.user_features where like_count > 0)
                - (select count(*) from two_tower.user_embeddings where model_version = %(v)s)""",
        {"v": version},
    ).fetchone()
    assert row is not None
    for kind, missing in zip(("video", "user"), row, strict=True):
        last, batches, size = None, 0, 500
        while True:
            found = connection.execute(
                "select two_tower.backfill_batch(%s, %s, %s, %s)", (version, kind, last, size)
            ).fetchone()
            assert found is not None
            if found[0] is None:
                break
            last, batches = found[0], batches + 1
            progress(f"embedding {kind}s", min(1.0, batches * size / max(missing, 1)))
    progress("building the index", 1.0)
    connection.execute("select two_tower.finish_backfill(%s)", (version,))


def activate(connection: Connection, version: str | None, progress: Progress, *, force: bool = False) -> dict[str, Any]:
    """Bring everything up to date, embed what ``version`` lacks, and make it the one that serves."""
    version = version or newest_candidate(connection)
    connection.execute("select two_tower.require_model(%s)", (version,))
    refresh(connection, progress)
    backfill(connection, version, progress)
    # What changed during the backfill; after this, refreshes keep the version current.
    refresh(connection, progress)
    row = connection.execute("select two_tower.activate_model(%s, %s)", (version, force)).fetchone()
    assert row is not None
    connection.execute("select two_tower.update_popularity()")
    return dict(row[0])
