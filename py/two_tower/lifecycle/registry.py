"""Registers trained models and moves them through their lifecycle. The rules are in the database; this calls it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, ClassVar, LiteralString

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from two_tower import neighbours
from two_tower.database import another
from two_tower.errors import GateFailed, UserError
from two_tower.features import DIM, SCHEMA_VERSION
from two_tower.lifecycle import tower_rows
from two_tower.progress import Progress
from two_tower.rows import column
from two_tower.trainer.runs import NAME

if TYPE_CHECKING:
    from two_tower.features import FeatureSchema, TrainingData
    from two_tower.trainer.model import ItemTower, UserTower
    from two_tower.trainer.train import TrainedModel

Connection = psycopg.Connection[Any]

GATE = "TT003"
"""SQLSTATE with which the database says that a quality gate refuses."""


FILES = ("user_tower.onnx", "item_tower.onnx", "weights.safetensors")
"""The files of a version, in the order of :func:`register_files`."""

RESERVED_VERSIONS = frozenset({"current"})
"""Names that no version may have, in upper or lower case; two_tower.reserved_versions() is the same list. ``current``
is where a store keeps the manifest of the current version."""


def require_version_name(version: str) -> None:
    """Raises UserError if no version can have this name, as the database does."""
    if not NAME.fullmatch(version):
        raise UserError(
            f"a version cannot be called {version!r}",
            "a name has 1 to 63 letters, digits, dots, dashes and underscores, and begins with a letter or digit",
        )
    if version.lower() in RESERVED_VERSIONS:
        raise UserError(
            f"no model version can be called {version}: where models are published, that name leads to the current one",
            "give the model another version",
        )


def require_new(connection: Connection, version: str) -> None:
    """Raises UserError if the database has a version of this name."""
    known = connection.execute("select 1 from two_tower.model_versions where version = %s", (version,))
    if known.fetchone():
        raise UserError(f"there is a model version {version} already", "give the new one another name: --version")


def new_version(connection: Connection) -> str:
    """A new version name: the time in UTC, to the second, with a number appended if it is taken."""
    stem = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    taken = {v for (v,) in connection.execute("select version from two_tower.model_versions")}
    return next(v for n in range(len(taken) + 1) if (v := f"{stem}.{n}" if n else stem) not in taken)


def meta(version: str, model: TrainedModel, data: TrainingData, incumbent: str | None = None) -> dict[str, Any]:
    """``model_meta.json``: the model, its training data, its trainer, and the version active at the time."""
    import numpy as np
    import torch

    schema = model.schema
    return {
        "version": version,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "dim": DIM,
        "input_schema_version": SCHEMA_VERSION,
        "sizes": sizes(schema),
        "loss": model.loss(),
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


def sizes(schema: FeatureSchema) -> dict[str, Any]:
    """The numbers of inputs in a model's description."""
    return {
        "user_dim": schema.user_dim,
        "item_dim": schema.item_dim,
        "vocabularies": {name: len(keys) for name, keys in schema.vocabularies.items()},
    }


def register(connection: Connection, model: TrainedModel, data: TrainingData, version: str | None = None) -> str:
    """Export ``model`` and register it as a candidate; returns its version.

    Raises psycopg.Error if the database refuses it, UserError if it was not measured.
    """
    from two_tower.trainer.train import unmeasured

    if not model.metrics:
        raise unmeasured()
    version = version or new_version(connection)
    incumbent = connection.execute("select two_tower.active_version()").fetchone()
    register_files(connection, version, **contents(model, data, version, incumbent and incumbent[0]))
    return version


def contents(model: TrainedModel, data: TrainingData, version: str, incumbent: str | None = None) -> dict[str, Any]:
    """What :func:`register_files` takes of a trained model."""
    from two_tower.trainer.export import export_towers

    user_tower, item_tower, weights = export_towers(model.user_tower, model.item_tower, model.neighbours)
    sample = parity_sample(model.schema, (model.user_tower, user_tower), (model.item_tower, item_tower))
    return {
        "files": (user_tower, item_tower, weights),
        "feature_schema": model.schema.to_json(),
        "normalizer": model.normalizer(),
        "vocabularies": {name: list(keys) for name, keys in model.schema.vocabularies.items()},
        "metrics": model.metrics | {"parity": sample},
        "meta": meta(version, model, data, incumbent),
    }


def register_files(
    connection: Connection,
    version: str,
    files: tuple[bytes | None, bytes | None, bytes],
    *,
    feature_schema: dict[str, Any],
    normalizer: dict[str, Any],
    vocabularies: dict[str, list[str]],
    metrics: dict[str, Any],
    meta: dict[str, Any],
) -> None:
    """Register a candidate from its files: user tower, item tower (ONNX) and weights (safetensors).

    Weights of :mod:`two_tower.model` are also stored as rows; then a file larger than the setting model_max_bytes is
    not stored beside them. Neighbours are always stored as rows. Does nothing if that version is registered with the
    same content. Raises psycopg.Error if the database refuses it.
    """
    with connection.transaction():
        known = connection.execute("select from two_tower.model_versions where version = %s", (version,)).fetchone()
        tensors = tower_rows.tensors_of(files[2])
        rows = tower_rows.to_rows(tensors)
        videos = vocabularies.get("video", [])
        beside = neighbours.read(tensors, len(videos))
        if beside is not None:
            # By these the database knows whether a version registered again is the same.
            meta = meta | {"neighbours": {"entries": len(beside.values), "sha256": beside.digest}}
        kept: list[bytes | None] = list(files)
        if known is not None:
            # Files that are not stored are not compared, whatever the setting was then.
            stored = column(connection, "select name from two_tower.model_files where model_version = %s", (version,))
            kept = [content if name in stored else None for name, content in zip(FILES, files, strict=True)]
        else:
            tower_rows.store_neighbours(connection, version, videos, beside)
        if known is None and rows is not None:
            tower_rows.store(connection, version, rows)
            most, computed = connection.execute(
                """select two_tower.model_setting('model_max_bytes'), s.value <> '"onnxruntime"'
                from two_tower.settings s where s.name = 'inference_engine'"""
            ).fetchone() or (0, True)
            if computed:  # from rows; an export generates the files
                kept = [content if content is not None and len(content) <= most else None for content in files]
        user_tower, item_tower, weights = kept
        documents = (feature_schema, normalizer, vocabularies, metrics, meta)
        connection.execute(
            "select two_tower.register_model(%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (version, user_tower, item_tower, *(Jsonb(plain(document)) for document in documents), weights),
        )


def parity_sample(
    schema: FeatureSchema,
    user: tuple[UserTower, bytes | None],
    item: tuple[ItemTower, bytes | None],
    rows: int = 6,
    seed: int = 0,
) -> dict[str, Any]:
    """``metrics["parity"]``: for each tower (torch, ONNX) its file's hash, inputs by ``seed``, and torch's vectors.

    A tower that is too large to be a file has no hash.

    The database refuses a tower with other outputs. The inputs are random, not users' likes, since metrics are
    published. The first input is empty; each count of the others is a pair of position (from 0) and value.
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
            "sha256": None if graph is None else hashlib.sha256(graph).hexdigest(),
            "inputs": [[[int(at), float(row[at])] for at in np.flatnonzero(row)] for row in inputs],
            "outputs": [[round(float(value), 6) for value in vector] for vector in outputs],
        }
    return sample


def plain(document: Any) -> Any:
    """The document with NaN as null, since JSON has no NaN."""
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
    """The version that ``model activate`` uses by default."""
    row = connection.execute(
        """select version from two_tower.model_versions
        where state in ('candidate', 'staged') order by number desc limit 1"""
    ).fetchone()
    if row is None:
        raise UserError(
            "there is no candidate to activate", "train one with `two-tower train`, or name a standby version"
        )
    return str(row[0])


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did."""

    counts: dict[str, int]
    """``users`` and ``videos`` processed, ``vectors`` written, users and videos ``failed``."""
    jobs: dict[str, dict[str, Any]]
    """Jobs that were due and followed it → their result, with ``error`` if they failed."""


def refresh(
    connection: Connection,
    progress: Progress,
    limit: int | None = None,
    *,
    all_jobs: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Refreshed:
    """Drain the change log as ``two_tower.refresh()`` does, without a limit of time.

    ``connection`` is in autocommit mode. With ``limit``, it ends after that many users and videos, and leaves the rest
    in the log. Popularity and purge follow if they are due; with ``all_jobs`` the other jobs, too. If ``stopped()``, it
    ends after the current transaction. The job log records the run. Raises UserError if the refresh failed, not if a
    job did.
    """
    total = 0
    for run in _run(
        connection,
        "select * from two_tower.begin_refresh(null, null, %s, %s)",
        (limit, all_jobs),
        "select * from two_tower.refresh_step(%s)",
    ):
        seen = run["result"]["users"] + run["result"]["videos"]
        total = max(total or sum(pending(connection).values()), seen, 1)
        progress("refreshing", seen / total)
        if stopped():
            break
    if run["failure"] is not None:
        raise UserError(f"the refresh failed: {run['failure']}", "`two-tower status` says what mends it")
    return Refreshed(run["result"], run["jobs"])


def _run(
    connection: Connection, begin: LiteralString, values: tuple[Any, ...], step: LiteralString
) -> Iterator[dict[str, Any]]:
    """Yields the result of ``begin``, then of each ``step`` from the previous state, until the database has finished.

    The procedures of the same name do the same. Each step is a transaction, READ COMMITTED whatever the default is.
    """
    cursor = connection.cursor(row_factory=dict_row)
    query = begin
    while True:
        with connection.transaction():
            cursor.execute("set transaction isolation level read committed, read write")
            (run,) = cursor.execute(query, values).fetchall()
        yield run
        if run["finished"]:
            return
        query, values = step, (Jsonb(run["state"]),)


def pending(connection: Connection) -> dict[str, int]:
    """``users`` and ``videos`` in the change log. Likers of changed videos are added later."""
    row = connection.execute(
        """select (select count(distinct user_id) from two_tower.pending_users),
            (select count(distinct video_id) from two_tower.video_changes)"""
    ).fetchone()
    assert row is not None
    return {"users": int(row[0]), "videos": int(row[1])}


def mark_users(
    connection: Connection, recent: str | None, min_likes: int, include_existing: bool, limit: int | None
) -> int:
    """Put users with at least ``min_likes`` likes into the change log; returns their number.

    By default these are users without a vector of a live version, with ``include_existing`` all; with ``recent``, a
    PostgreSQL interval, only those with a decision within it. Raises psycopg.DataError if the interval is invalid.
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
    connection: Connection,
    version: str,
    progress: Progress,
    *,
    workers: int = 1,
    force: bool = False,
    measured: dict[str, Any] | None = None,
    overrides: dict[str, float] | None = None,
) -> None:
    """Stage ``version`` and compute its missing vectors, over ``workers`` connections; call again to resume.

    Each worker does what ``two_tower.backfill_model()`` does. Raises GateFailed if the version's metrics are
    refused, which rejects it; with ``force`` they are recorded and overruled. ``measured`` and ``overrides`` are for
    the gate, as in :func:`flip`.
    """
    staging = (version, force, *evidence(measured, overrides))
    first = _backfilled(connection, staging)
    begun = next(first)
    if begun["failure"] is not None:
        raise GateFailed(begun["failure"])
    share = _Share(begun["done"], begun["total"], progress)
    others = [another(connection) for _ in range(workers - 1)]
    try:
        with ThreadPoolExecutor(workers) as pool:
            runs = [first, *(_backfilled(one, staging) for one in others)]
            work = [pool.submit(share.follow, run) for run in runs]
            try:
                for done in as_completed(work):
                    done.result()
            finally:
                share.stop.set()  # if one fails or is interrupted, the others end after the current batch
    finally:
        for one in others:
            one.close()


def _backfilled(connection: Connection, staging: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    return _run(
        connection,
        "select * from two_tower.begin_backfill(%s, %s, %s, %s)",
        staging,
        "select * from two_tower.backfill_step(%s)",
    )


class _Share:
    """How much of a backfill is done, told by any of its workers."""

    PHASES: ClassVar = {
        "video": "embedding videos",
        "attach": "building the index",
        "user": "embedding users",
        "finish": "checking for missing vectors",
    }

    def __init__(self, done: int | None, total: int, progress: Progress) -> None:
        self.done, self.total, self.progress = done or 0, total, progress
        self.telling = Lock()
        self.stop = Event()

    def follow(self, steps: Iterator[dict[str, Any]]) -> None:
        """Go through the steps of one worker."""
        for step in steps:
            with self.telling:
                # The work done before the start is in the figure already.
                self.done += 0 if "total" in step else step["done"]
                self.progress(self.PHASES[step["phase"]], min(1.0, self.done / max(self.total, 1)))
            if self.stop.is_set():
                return


def activate(
    connection: Connection,
    version: str | None,
    progress: Progress,
    *,
    force: bool = False,
    workers: int = 1,
    overrides: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Bring everything up to date, compute missing vectors of ``version``, and activate it.

    Raises GateFailed if the gate says no; ``force`` overrules it, and is recorded; ``overrides`` are gate settings for
    this call. Failures after the switch are among the ``warnings`` of the result.
    """
    version = version or newest_candidate(connection)
    connection.execute("select two_tower.require_model(%s)", (version,))
    refresh(connection, progress)
    backfill(connection, version, progress, workers=workers, force=force, overrides=overrides)
    # What changed during the backfill; after this, refreshes keep the version current.
    refresh(connection, progress)
    done = flip(
        connection, version, force=force, measured=replayed(connection, version, overrides), overrides=overrides
    )
    return done | {"warnings": update_popularity(connection)}


def replayed(connection: Connection, version: str, overrides: dict[str, float] | None) -> dict[str, Any] | None:
    """The replay's result, if the gate requires one; otherwise None."""
    from two_tower.lifecycle import replay  # needs numpy, which a rollback does not

    return replay.evidence(connection, version, overrides)


def flip(
    connection: Connection,
    version: str,
    *,
    force: bool = False,
    measured: dict[str, Any] | None = None,
    overrides: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Activate a backfilled ``version``; durable when this returns. Raises GateFailed as activate().

    ``measured`` is passed to the gate in addition to its own checks, as ``gate.Measured.numbers()`` returns it;
    without it the registered metrics count.
    """
    values = (version, force, *evidence(measured, overrides))
    with asking_the_gate():
        return _flip(connection, "select two_tower.activate_model(%s, %s, %s, %s)", values)


@contextmanager
def asking_the_gate() -> Iterator[None]:
    """Raises GateFailed if the database says that a gate refuses."""
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate != GATE:
            raise
        raise GateFailed(error.diag.message_primary or str(error), error.diag.message_hint) from error


def evidence(measured: dict[str, Any] | None, overrides: dict[str, float] | None) -> tuple[Jsonb | None, Jsonb | None]:
    """Measurements and overrides in the form that the database's gate takes."""
    return Jsonb(measured) if measured else None, Jsonb(overrides) if overrides else None


def roll_back(connection: Connection, version: str | None = None) -> dict[str, Any]:
    """Make ``version``, or the one that served last, serve again; durable when this returns."""
    return _flip(connection, "select two_tower.rollback_model(%s)", (version,))


def _flip(connection: Connection, query: LiteralString, values: tuple[Any, ...]) -> dict[str, Any]:
    """A flip, which readers see at once, and then a commit that waits for the disk."""
    row = connection.execute(query, values).fetchone()
    assert row is not None
    connection.execute("select two_tower.make_durable()")
    return dict(row[0])


def update_popularity(connection: Connection) -> list[str]:
    """Count popularity again after a flip, which must not fail because of it. Returns what went wrong."""
    row = connection.execute("select error from two_tower.try_job('update_popularity')").fetchone()
    assert row is not None
    return [] if row[0] is None else [f"popularity was not updated: {row[0]}"]
