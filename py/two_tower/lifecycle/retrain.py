"""The weekly run: train, evaluate, register, backfill, gate, activate, publish, notify.

It either activates a new model or keeps the active one:

    0 4 * * 0  two-tower retrain --publish s3://models/two-tower --webhook https://hooks.example/...

Whatever fails, the version that was active stays active; a failure after the activation is rolled back. Versions
staged by a failed run are retired, so that refreshes do not maintain them for nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from two_tower.errors import GateFailed, UserError
from two_tower.lifecycle import artifacts, registry
from two_tower.notify import Channels
from two_tower.progress import Progress

if TYPE_CHECKING:
    from two_tower.trainer.dataset import DatasetOptions
    from two_tower.trainer.options import TrainOptions

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Plan:
    """Options of a run."""

    dataset: DatasetOptions
    training: TrainOptions
    overrides: dict[str, float] = field(default_factory=dict)
    """Settings of the gate for this run alone."""
    publish: str | None = None
    """URL to publish to, see :mod:`two_tower.lifecycle.artifacts`; None publishes nowhere."""
    publish_users: bool = False
    """Whether vectors of users are published, too."""
    channels: Channels = field(default_factory=Channels)
    """Channels that are notified of the outcome."""
    keep: int = 1
    """Number of standby versions to keep; older ones are retired."""
    workers: int = 1
    """Connections that compute vectors in parallel."""
    dsn: str | None = None
    """The database, if it was given by an option; a message repeats it."""


@dataclass
class Run:
    """Progress of a run."""

    previous: str | None
    version: str | None = None
    step: str = "starting"
    metrics: dict[str, Any] = field(default_factory=dict)
    published: bool = False
    retired: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0


def retrain(connection: Connection, plan: Plan, progress: Progress) -> Run:
    """Run all steps. ``connection`` is in autocommit mode.

    Raises the error of a failed step, or GateFailed if the new model is not good enough, after the active version is
    restored and all channels are notified.
    """
    started = time.monotonic()
    run = Run(_active(connection))
    try:
        _steps(connection, plan, run, progress)
    except Exception as error:
        _undo(connection, run)
        run.seconds = time.monotonic() - started
        run.warnings += plan.channels.tell("two-tower: retraining failed", _failure(run, error))
        for warning in run.warnings:
            error.add_note(warning)
        raise
    run.seconds = time.monotonic() - started
    run.warnings += plan.channels.tell("two-tower: a new model is active", _success(run, plan))
    return run


def _steps(connection: Connection, plan: Plan, run: Run, progress: Progress) -> None:
    run.step = "looking for an experiment"
    # Checked now, because it would refuse the activation hours later.
    connection.execute("select two_tower.require_no_experiment()")

    run.step = "training"
    progress("reading", 0.0)
    from two_tower.lifecycle import gate
    from two_tower.trainer.dataset import read
    from two_tower.trainer.train import fit

    data = read(connection, plan.dataset)
    model = fit(data, plan.training, progress, to_register=True)

    run.step = "registering"
    with artifacts.kept(model, data, None, plan.dsn):
        run.version = version = registry.register(connection, model, data)

    run.step = "evaluating"
    progress("evaluating", 0.0)
    found = gate.measure(connection, version)
    run.metrics = found.metrics
    case: dict[str, Any] = {"measured": found.numbers(), "overrides": plan.overrides}

    run.step = "backfilling"
    registry.refresh(connection, progress)
    registry.backfill(connection, version, progress, workers=plan.workers, **case)

    # Everything slow is done before the activation; after it, publishing copies within the store.
    manifest = None
    if plan.publish:
        run.step = "publishing"
        manifest, _ = artifacts.upload(connection, version, plan.publish, progress, users=plan.publish_users)

    run.step = "activating"
    registry.refresh(connection, progress)
    progress("activating", 1.0)
    if replayed := registry.replayed(connection, version, plan.overrides):
        case["measured"] |= replayed
    registry.flip(connection, version, **case)
    run.warnings += registry.update_popularity(connection)

    if plan.publish and manifest:
        run.step = "publishing"
        artifacts.point(plan.publish, manifest)
        run.published = True

    run.step = "retiring"
    for old in surplus(connection, plan.keep):
        try:
            connection.execute("select two_tower.retire_model(%s)", (old,))
            run.retired.append(old)
        except psycopg.Error as error:
            run.warnings.append(f"{old} was not retired: {str(error).strip()}")
    run.step = "done"


def _undo(connection: Connection, run: Run) -> None:
    """Reactivate the previous version and retire the staged one. A step that cannot be undone is a warning."""
    if run.version is None:
        return
    try:
        if _active(connection) == run.version:
            if run.previous is None:
                run.warnings.append(f"{run.version} is active all the same")  # better than none
                return
            registry.roll_back(connection, run.previous)
        row = connection.execute(
            "select state from two_tower.model_versions where version = %s", (run.version,)
        ).fetchone()
        if row and row[0] in ("staged", "standby"):
            connection.execute("select two_tower.retire_model(%s)", (run.version,))
    except psycopg.Error as failure:
        run.warnings.append(f"undoing failed too: {str(failure).strip()}")


def _active(connection: Connection) -> str | None:
    row = connection.execute("select two_tower.active_version()").fetchone()
    assert row is not None
    return None if row[0] is None else str(row[0])


def surplus(connection: Connection, keep: int) -> list[str]:
    """Standby versions beyond the newest ``keep``, newest first. Versions of given vectors are left to their owner."""
    rows = connection.execute(
        """select version from two_tower.model_versions
        where state = 'standby' and user_engine <> 'given'
        order by coalesce(activated_at, backfilled_at) desc nulls last offset %s""",
        (keep,),
    )
    return [version for (version,) in rows]


# ------------------------------------------------------------------------------------------------ notifications


def _success(run: Run, plan: Plan) -> str:
    own, popular = (run.metrics.get(name, {}).get("recall@20") for name in ("two-tower", "popularity"))
    parts = [f"Model {run.version} is active"]
    if own is not None:
        parts.append(f"Recall@20 {own:.4f}" + ("" if popular is None else f" (popularity: {popular:.4f})"))
    if run.previous:
        parts.append(f"{run.previous} stands by")
    if run.published:
        parts.append(f"published to {plan.publish}")
    return "; ".join([*parts, f"{run.seconds:.0f} s", *run.warnings]) + "."


def why(error: Exception) -> str:
    """The error in a sentence."""
    return error.message if isinstance(error, UserError) else str(error).strip() or type(error).__name__


def _failure(run: Run, error: Exception) -> str:
    what = (
        "Retraining was stopped by a gate" if isinstance(error, GateFailed) else f"Retraining failed while {run.step}"
    )
    reason = why(error)
    stays = f"Model {run.previous} stays active" if run.previous else "No model was active before"
    return ". ".join([f"{what}: {reason}", stays, *run.warnings]) + "."
