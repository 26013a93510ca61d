"""Measuring a model version for the gate: its metrics beside the references and the active version's, and its parity.

The results are passed to the database, whose ``two_tower.gate_metrics()`` judges them by ``two_tower.settings``.

Two versions are compared on likes that neither has seen. If enough users have liked something since both were
trained, those likes are used; otherwise each version's metrics are those recorded in its training, where towers fitted
to a part of the data were measured on the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import psycopg
import torch
from pgvector import HalfVector, SparseVector
from psycopg.types.json import Jsonb

from two_tower.database import SNAPSHOT
from two_tower.errors import UserError
from two_tower.features import LIKE, NOPE, SKIP, TrainingData, user_counts
from two_tower.lifecycle.registry import plain
from two_tower.lifecycle.towers import Towers, load
from two_tower.rows import one
from two_tower.trainer import evaluate
from two_tower.trainer.dataset import DatasetOptions, read
from two_tower.trainer.options import TrainOptions

Connection = psycopg.Connection[Any]

FRESH_USERS = 200
"""The number of users with a like after both trainings that is enough to measure versions on such likes."""


@dataclass(frozen=True)
class Incumbent:
    """The active version with which another is compared, and its metrics, measured in the same way."""

    version: str
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """The measurements of a version."""

    version: str
    measured_on: str
    metrics: dict[str, Any]
    """Recommender → metrics, the version's own as ``two-tower``."""
    incumbent: Incumbent | None
    """None if no version is active, or if this one is."""
    parity: dict[str, float | None]
    """Comparison → largest cosine distance; None if there was nothing to compare."""
    fresh: bool
    """Whether the metrics were measured now, on likes since the trainings, and not at the trainings."""

    def numbers(self) -> dict[str, Any]:
        """The argument ``measured`` of ``two_tower.gate_metrics()``. JSON has no NaN, so a NaN distance is text."""
        metrics = None
        if self.fresh:
            metrics = {self.version: self.metrics}
            if self.incumbent:
                metrics[self.incumbent.version] = {"two-tower": self.incumbent.metrics}
        distances = {
            what: distance if distance is None or np.isfinite(distance) else str(distance)
            for what, distance in self.parity.items()
        }
        return {"metrics": plain(metrics), "distances": distances}


def judge(
    connection: Connection,
    version: str,
    measured: dict[str, Any] | None = None,
    overrides: dict[str, float] | None = None,
) -> list[str]:
    """Reasons of the database's gate to refuse ``version`` by its metrics; ``measured`` is :meth:`Measured.numbers`."""
    values = (version, Jsonb(measured or {}), Jsonb(overrides or {}))
    return list(one(connection, "select two_tower.gate_metrics(%s, %s, %s)", values))


def measure(connection: Connection, version: str, also: Sequence[int] = ()) -> Measured:
    """Measure ``version``, and the active one for comparison. Raises UserError if there is no such version.

    ``also``: lengths of lists besides 20; metrics recorded by a training have those that the training was given.
    ``connection`` is in autocommit mode.
    """
    found = {
        name: (active, metrics, trained_at and datetime.fromisoformat(trained_at).timestamp())
        for name, active, metrics, trained_at in connection.execute(
            """select version, state = 'active', metrics, meta ->> 'trained_at'
            from two_tower.models where version = %s or state = 'active' and follows_likes""",
            (version,),
        )
    }
    if version not in found:
        raise UserError(f"there is no model version {version}", "list them with `two-tower model list`")
    active = next((name for name, (serves, _, _) in found.items() if serves and name != version), None)
    towers = load(connection, version)
    compared = parity(connection, version, towers)
    trained = [at for _, _, at in found.values()]
    fresh = None
    if all(trained):
        beside = {} if active is None else {active: load(connection, active)}
        fresh = _since(connection, towers, beside, max(trained), also=also)
    if fresh:
        metrics, others = fresh
        incumbent = None if active is None else Incumbent(active, others[active])
        return Measured(version, "likes since it was trained", metrics, incumbent, compared, fresh=True)
    metrics = found[version][1]
    metrics.pop("parity", None)  # the sample by which the database verifies the files
    incumbent = None if active is None else Incumbent(active, found[active][1].get("two-tower") or {})
    return Measured(version, "likes held out of its training", metrics, incumbent, compared, fresh=False)


def _since(
    connection: Connection,
    towers: Towers,
    beside: dict[str, Towers],
    moment: float,
    k: int = 20,
    also: Sequence[int] = (),
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]] | None:
    """Metrics on likes after ``moment`` (seconds), from histories before it; None if too few users have any.

    Returns those of ``towers`` and of references by recommender, and those of other versions in ``beside`` by version.
    """
    # One snapshot, so that the versions are measured on the same likes.
    with connection.transaction():
        connection.execute(SNAPSHOT)
        data = read(connection, DatasetOptions(), towers.schema)
        others_data = {name: read(connection, DatasetOptions(), t.schema) for name, t in beside.items()}
    after = data.time > moment
    relevant = data.matrix(LIKE, after)
    if int((np.diff(relevant.indptr) > 0).sum()) < FRESH_USERS:
        return None
    likes, nopes, skips = (data.matrix(label, ~after, given=False) for label in (LIKE, NOPE, SKIP))
    seen = (likes + nopes + skips).tocsr()

    asked, relevant = evaluate.asked(relevant, TrainOptions.measured_users)

    def scorer(of: Towers, laid_out: TrainingData) -> evaluate.Scorer:
        counts = laid_out.item_counts
        # Counts are several times as large as decisions, so they are built only for the measured users.
        liked, noped = (data.matrix(label, ~after, of.schema.recency)[asked] for label in (LIKE, NOPE))
        profile = None if laid_out.profile is None else laid_out.profile[asked]
        given = user_counts(of.schema, counts, liked, noped, profile)
        found = evaluate.by_vectors(of.user.embed(given), of.item.embed(counts))
        if of.neighbours is not None:
            # The inputs tell each video's position in the vocabulary, since ids come last.
            ids = counts[:, of.schema.segment("item", "id").offset :]
            across = (ids @ of.neighbours @ ids.T).tocsr()
            found = evaluate.with_neighbours(found, liked, across, of.user.length(given))
        return lambda rows: found(np.searchsorted(asked, rows))

    references, _ = evaluate.references(likes)
    own = evaluate.report({"two-tower": scorer(towers, data)} | references, likes, seen, relevant, k=k, also=also)
    others = {name: scorer(t, others_data[name]) for name, t in beside.items()}
    return own, evaluate.report(others, likes, seen, relevant, k=k)


def parity(connection: Connection, version: str, towers: Towers | None = None) -> dict[str, float | None]:
    """Largest cosine distances in a sample of users and videos: torch to engine, engine to stored vector.

    None if there is nothing to compare. The setting gate_sample is the number of each. Users and videos with pending
    changes are left out of the sample.
    """
    towers = towers or load(connection, version)
    result: dict[str, float | None] = {}
    for kind, tower in (("user", towers.user), ("video", towers.item)):
        rows = connection.execute(
            psycopg.sql.SQL(
                """with sample as (
                    select id from (select {id} as id from {source}) as known
                    where not exists (select from two_tower.{waiting} c where c.{id_} = known.id) and {settled}
                    order by hashtextextended(id::text, 0) limit two_tower.gate_setting('gate_sample')::int
                ),
                -- From the present rows, not from stored inputs.
                inputs as (
                    select array_agg(e.{id_}) as ids, array_agg(e.input) as inputs
                    from two_tower.{encode}(array(select id from sample), {version}) e
                )
                select e.input::text, e.embedding::text, s.embedding::text
                from inputs i
                cross join lateral unnest(i.ids, i.inputs, two_tower.infer({version}, {tower}, i.inputs))
                    as e (id, input, embedding)
                left join two_tower.{stored} s on s.model_version = {version} and s.{id_} = e.id
                where i.ids is not null"""
            ).format(
                id=psycopg.sql.Identifier("user_id" if kind == "user" else "id"),
                id_=psycopg.sql.Identifier(f"{kind}_id"),
                source=psycopg.sql.SQL(
                    "two_tower.user_features where like_count > 0" if kind == "user" else "public.videos"
                ),
                # A changed video also changes its likers.
                waiting=psycopg.sql.Identifier("pending_users" if kind == "user" else "video_changes"),
                settled=psycopg.sql.SQL(
                    """not exists (
                        select from two_tower.video_changes c
                        join public.user_video_decisions d on d.video_id = c.video_id and d.user_id = known.id
                    )"""
                    if kind == "user"
                    else "true"
                ),
                tower=psycopg.sql.Literal("user" if kind == "user" else "item"),
                encode=psycopg.sql.Identifier(f"encode_{kind}s"),
                stored=psycopg.sql.Identifier(f"{kind}_embeddings"),
                version=psycopg.sql.Literal(version),
            )
        ).fetchall()
        if not rows:
            result[f"torch and the engine, {kind}s"] = result[f"the engine and what is stored, {kind}s"] = None
            continue
        inputs = np.stack([SparseVector.from_text(row[0]).to_numpy() for row in rows]).astype(np.float32)
        engine = np.stack([HalfVector.from_text(row[1]).to_numpy() for row in rows]).astype(np.float32)
        with torch.no_grad():
            expected = tower(torch.from_numpy(inputs)).numpy()
        result[f"torch and the engine, {kind}s"] = _distance(expected, engine)
        kept = [at for at, row in enumerate(rows) if row[2] is not None]
        stored = [HalfVector.from_text(rows[at][2]).to_numpy() for at in kept]
        result[f"the engine and what is stored, {kind}s"] = (
            _distance(engine[kept], np.stack(stored).astype(np.float32)) if stored else None
        )
    return result


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float(np.maximum(0.0, (1 - cosine).max()))  # max() would turn NaN into 0
