"""Registering trained models, and moving them through their lifecycle. The rules are the database's; this drives it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import uuid4

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from two_tower.database import another
from two_tower.errors import GateFailed, UserError
from two_tower.features import DIM, SCHEMA_VERSION
from two_tower.lifecycle import tower_rows
from two_tower.progress import Progress

if TYPE_CHECKING:
    from two_tower.features import FeatureSchema, TrainingData
    from two_tower.trainer.model import ItemTower, UserTower
    from two_tower.trainer.train import TrainedModel

Connection = psycopg.Connection[Any]
REFRESH_BATCH = 1000
"""Users or videos per transaction of a refresh, as two_tower.refresh_batch() has it."""

GATE = "TT003"
"""SQLSTATE with which the database says that a quality gate refuses."""
BATCH = 500


@contextmanager
def gated() -> Iterator[None]:
    """Turns the database's refusal into :class:`GateFailed`."""
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate != GATE:
            raise
        raise GateFailed(error.diag.message_primary or str(error), error.diag.message_hint) from error


RESERVED_VERSIONS = frozenset({"current"})
"""Names that no version may have, in any spelling; two_tower.reserved_versions() is the same list. ``current`` is where
a store keeps the manifest of the version that is meant."""


def require_version_name(version: str) -> None:
    """UserError where a version cannot have this name; what else is wrong with a name, the database says."""
    if version.lower() in RESERVED_VERSIONS:
        raise UserError(
            f"no model version can be called {version}: where models are published, that name leads to the current one",
            "give the model another version",
        )


def new_version(connection: Connection) -> str:
    """A version that is not taken yet: the time in UTC, to the second, with a number where that is not enough."""
    stem = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    taken = {v for (v,) in connection.execute("select version from two_tower.model_versions")}
    return next(v for n in range(len(taken) + 1) if (v := f"{stem}.{n}" if n else stem) not in taken)


def meta(version: str, model: TrainedModel, data: TrainingData, incumbent: str | None = None) -> dict[str, Any]:
    """``model_meta.json``: what the model is, what it was made of, by what, and beside which active version."""
    import numpy as np
    import torch

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
            "latest": datetime.fromtimestamp(float(data.time.max(initial=0)), UTC).isoformat(timespec="seconds"),
        },
        "lineage": {"incumbent": incumbent, "pg-two-tower": installed("pg-two-tower"), "torch": str(torch.__version__)},
    }


def register(connection: Connection, model: TrainedModel, data: TrainingData, version: str | None = None) -> str:
    """Export ``model`` and register it as a candidate; its version.

    Raises psycopg.Error where the database refuses it.
    """
    from two_tower.trainer.export import export_towers

    version = version or new_version(connection)
    user_tower, item_tower, weights = export_towers(model)
    sample = parity_sample(model.schema, (model.user_tower, user_tower), (model.item_tower, item_tower))
    if not model.metrics:
        raise UserError(
            "the model cannot be measured, because no likes were held out of its training",
            "users with five likes or more take part in that; collect more likes first",
        )
    incumbent = connection.execute("select two_tower.active_version()").fetchone()
    register_files(
        connection,
        version,
        (user_tower, item_tower, weights),
        feature_schema=model.schema.to_json(),
        normalizer=model.normalizer(),
        vocabularies={name: list(keys) for name, keys in model.schema.vocabularies.items()},
        metrics=model.metrics | {"parity": sample},
        meta=meta(version, model, data, incumbent and incumbent[0]),
    )
    return version


def register_files(
    connection: Connection,
    version: str,
    files: tuple[bytes, bytes, bytes],
    *,
    feature_schema: dict[str, Any],
    normalizer: dict[str, Any],
    vocabularies: dict[str, list[str]],
    metrics: dict[str, Any],
    meta: dict[str, Any],
) -> None:
    """Register a candidate from its files: user tower, item tower (ONNX) and weights (safetensors).

    The weights are stored as rows, too, where they are those of :mod:`two_tower.model`. Does nothing where that version
    is registered with the same content. Raises psycopg.Error where the database refuses it.
    """
    user_tower, item_tower, weights = files
    documents = (feature_schema, normalizer, vocabularies, metrics, meta)
    with connection.transaction():
        known = connection.execute("select from two_tower.model_versions where version = %s", (version,)).fetchone()
        if known is None and (rows := tower_rows.to_rows(tower_rows.tensors_of(weights))) is not None:
            tower_rows.store(connection, version, rows)
        connection.execute(
            "select two_tower.register_model(%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (version, user_tower, item_tower, *(Jsonb(_plain(document)) for document in documents), weights),
        )


def parity_sample(
    schema: FeatureSchema, user: tuple[UserTower, bytes], item: tuple[ItemTower, bytes], rows: int = 6, seed: int = 0
) -> dict[str, Any]:
    """``metrics["parity"]``: for each tower (torch, ONNX) its file's hash, inputs by ``seed``, and torch's vectors.

    The database refuses a tower that answers otherwise. Nobody's likes are in it, since metrics are published. The
    first input is empty; each count of the others is a pair of position (from 0) and value.
    """
    import numpy as np
    import torch

    rng = np.random.default_rng(seed)
    identity, numbers = schema.segment("item", "id"), schema.segment("item", "numeric").size
    sample = {}
    for name, (tower, graph), width in (("user", user, schema.user_dim), ("item", item, schema.item_dim)):
        inputs = np.zeros((rows, width), dtype=np.float32)
        for at, row in enumerate(inputs[1:]):
            free = width if name == "user" else identity.offset  # an item has one id at most
            row[rng.integers(0, free, 24)] = rng.integers(1, 6, 24) if name == "user" else 1
            if name == "item":
                row[:numbers] = rng.integers(0, 5000, numbers)
            if name == "item" and identity.size and at % 2:
                row[identity.offset + rng.integers(0, identity.size)] = 1
        with torch.no_grad():
            outputs = tower(torch.from_numpy(inputs)).numpy()
        sample[name] = {
            "sha256": hashlib.sha256(graph).hexdigest(),
            "inputs": [[[int(at), float(row[at])] for at in np.flatnonzero(row)] for row in inputs],
            "outputs": [[round(float(value), 6) for value in vector] for vector in outputs],
        }
    return sample


def _plain(document: Any) -> Any:
    """The document with NaN as null, which is how JSON can say that there was nothing to measure."""
    return json.loads(json.dumps(document), parse_constant=lambda _: None)


def versions(connection: Connection) -> list[dict[str, Any]]:
    """Every version with its state, newest last."""
    cursor = connection.cursor(row_factory=dict_row)
    found = cursor.execute("select * from two_tower.models order by registered_at, version").fetchall()
    for row in found:
        row["metrics"].pop("parity", None)  # for machines
    return found


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


def refresh(connection: Connection, progress: Progress, limit: int | None = None) -> dict[str, int]:
    """Drain the change log in batches; counts of what was done. ``connection`` is in autocommit mode.

    With ``limit``, ends after so many users and videos, and leaves the rest in the log. The job log keeps what was done
    or why it failed, as it does for ``two_tower.refresh()``; a refresh with nothing to do leaves no row there.
    """
    state = _step(connection, "select * from two_tower.begin_refresh()", ())
    # One worker, from the first user on, needs one lap.
    run, after, laps, batches = state["run_id"], None, 1, 0
    done = state["result"]
    total = 0 if state["finished"] else sum(pending(connection).values())
    while not state["finished"]:
        seen = done["users"] + done["videos"]
        left = REFRESH_BATCH if limit is None else min(REFRESH_BATCH, limit - seen)
        if left < 1:
            break
        state = _step(
            connection,
            "select * from two_tower.refresh_step(%s, null, %s, %s, %s, null, %s)",
            (run, after, laps, batches, left),
        )
        after, laps, batches, done = state["after"], state["laps"], state["batches"], state["result"]
        seen = done["users"] + done["videos"]
        total = max(total, seen, 1)
        progress("refreshing", seen / total)
    return dict(done)


def _step(connection: Connection, query: LiteralString, values: tuple[Any, ...]) -> dict[str, Any]:
    """One transaction of a refresh, READ COMMITTED whatever the default is; its answer.

    Raises UserError with what the database says went wrong; the job log has it too.
    """
    with connection.transaction():
        connection.execute("set transaction isolation level read committed, read write")
        state = connection.cursor(row_factory=dict_row).execute(query, values).fetchone()
    assert state is not None
    if state["failure"] is not None:
        raise UserError(f"the refresh failed: {state['failure']}", "`two-tower status` says what mends it")
    return state


def pending(connection: Connection) -> dict[str, int]:
    """``users`` and ``videos`` in the change log. Who follows from changed videos is there later."""
    row = connection.execute(
        """select (select count(distinct user_id) from two_tower.pending_users),
            (select count(distinct video_id) from two_tower.video_changes)"""
    ).fetchone()
    assert row is not None
    return {"users": int(row[0]), "videos": int(row[1])}


def mark_users(
    connection: Connection, recent: str | None, min_likes: int, include_existing: bool, limit: int | None
) -> int:
    """Put users with at least ``min_likes`` likes into the change log; how many.

    Those who lack a vector of a live version, or with ``include_existing`` all; with ``recent``, an interval as
    PostgreSQL reads it, only those with a decision in that last time. Raises psycopg.DataError where it cannot read it.
    """
    row = connection.execute(
        "select two_tower.mark_users(%s::interval, %s, %s, %s)", (recent, min_likes, include_existing, limit)
    ).fetchone()
    assert row is not None
    return int(row[0])


def stale_users(
    connection: Connection, recent: str | None, min_likes: int, include_existing: bool, limit: int | None
) -> int:
    """How many users :func:`mark_users` would mark."""
    row = connection.execute(
        "select count(*) from two_tower.stale_users(%s::interval, %s, %s, %s)",
        (recent, min_likes, include_existing, limit),
    ).fetchone()
    assert row is not None
    return int(row[0])


def backfill(
    connection: Connection, version: str, progress: Progress, *, workers: int = 1, force: bool = False
) -> None:
    """Stage ``version`` and compute the vectors that it lacks, by ``workers`` connections; call again to resume.

    Raises GateFailed where its metrics are refused, which rejects it; with ``force`` they are recorded and overruled.
    """
    row = connection.execute("select two_tower.stage_model(%s, %s)", (version, force)).fetchone()
    assert row is not None
    if row[0]["state"] == "rejected":
        raise GateFailed(f"{version} is rejected: " + "; ".join(row[0]["reasons"]))
    share = _Share(connection, version, progress)
    others = [another(connection) for _ in range(workers - 1)]
    try:
        for kind in ("video", "user"):
            share.begin(kind)
            with ThreadPoolExecutor(workers) as pool:
                work = [pool.submit(_fill, one, version, kind, share) for one in (connection, *others)]
                for done in work:
                    done.result()
            if kind == "video":
                progress("building the index", 0.5)
                connection.execute("select two_tower.attach_partitions(%s)", (version,))
                _make_good(connection, version, progress)
        connection.execute("select two_tower.finish_backfill(%s)", (version,))
    finally:
        for one in others:
            one.close()


class _Share:
    """How much of a backfill is done, told by any of its workers."""

    def __init__(self, connection: Connection, version: str, progress: Progress) -> None:
        row = connection.execute(
            """select (select count(*) from public.videos),
                (select count(*) from two_tower.user_features where like_count > 0), two_tower.backfilled_share(%s)""",
            (version,),
        ).fetchone()
        assert row is not None
        self.videos, self.users, done = row
        self.total = max(self.videos + self.users, 1)
        self.done = int((done or 0) * self.total)
        self.kind, self.progress = "", progress

    def begin(self, kind: str) -> None:
        self.kind = kind

    def add(self, rows: int) -> None:
        self.done += rows
        self.progress(f"embedding {self.kind}s", min(1.0, self.done / self.total))


def _fill(connection: Connection, version: str, kind: str, share: _Share) -> None:
    """One worker: from a place of its own round and round, until a whole lap finds nothing missing."""
    after, whole, left = str(uuid4()), False, 0
    statement = "select last_id::text, seen, done from two_tower.backfill_batch(%s, %s, %s, %s)"
    while True:
        row = connection.execute(statement, (version, kind, after, BATCH)).fetchone()
        assert row is not None
        after, seen, done = row
        left += seen
        if after is None:
            if whole and not left:
                return
            whole, left = True, 0
        elif done:
            share.add(done)
        else:
            connection.execute("select pg_sleep(0.05)")  # another worker has them


def _make_good(connection: Connection, version: str, progress: Progress) -> None:
    """One pass over all videos, for those that changed between their embedding and the attaching of the partition."""
    after = None
    while True:
        row = connection.execute(
            """select b.last_id, (select checked_at is not null from two_tower.model_versions where version = %(v)s)
            from two_tower.backfill_batch(%(v)s, 'change', %(after)s) b""",
            {"v": version, "after": after},
        ).fetchone()
        assert row is not None
        after, checked = row
        if checked or after is None:
            return
        progress("looking at what changed meanwhile", 0.5)


def activate(
    connection: Connection, version: str | None, progress: Progress, *, force: bool = False, workers: int = 1
) -> dict[str, Any]:
    """Bring everything up to date, embed what ``version`` lacks, and make it the one that serves.

    Raises GateFailed where the gate says no; ``force`` overrules it, and is recorded. What fails after the switch is
    among the ``warnings`` of the answer.
    """
    version = version or newest_candidate(connection)
    connection.execute("select two_tower.require_model(%s)", (version,))
    refresh(connection, progress)
    backfill(connection, version, progress, workers=workers, force=force)
    # What changed during the backfill; after this, refreshes keep the version current.
    refresh(connection, progress)
    with gated():
        row = connection.execute("select two_tower.activate_model(%s, %s)", (version, force)).fetchone()
    assert row is not None
    return dict(row[0]) | {"warnings": update_popularity(connection)}


def update_popularity(connection: Connection) -> list[str]:
    """Count popularity anew, after a flip: this commit waits for the disk, which a flip's does not. What went wrong."""
    row = connection.execute("select two_tower.try_update_popularity()").fetchone()
    assert row is not None
    return [] if row[0] is None else [f"popularity was not updated: {row[0]}"]


def roll_back(connection: Connection, version: str | None = None) -> dict[str, Any]:
    """Make ``version``, or the one that served last, serve again; durable when this returns."""
    row = connection.execute("select two_tower.rollback_model(%s)", (version,)).fetchone()
    assert row is not None
    connection.execute("select pg_logical_emit_message(true, 'two_tower', 'rollback')")
    return dict(row[0])
