"""Whether a model version is good enough: its metrics beside the references, its parity, and thresholds on both.

A version is measured on likes that it has not seen: where enough users have liked something since it was trained, on
those; else by the record of its training, in which towers fitted to a part of the data were measured on the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import psycopg
import torch
from pgvector import HalfVector, SparseVector
from safetensors.torch import load as load_tensors

from two_tower.errors import UserError
from two_tower.features import LIKE, VOCABULARIES, FeatureSchema, user_counts
from two_tower.trainer import evaluate
from two_tower.trainer.dataset import DatasetOptions, read
from two_tower.trainer.model import ItemTower, UserTower

Connection = psycopg.Connection[Any]

FRESH_USERS = 200
"""Users with a like after training from which on the version is measured on such likes."""
SAMPLE = 200
"""Users, and videos, whose vectors are compared."""


@dataclass(frozen=True)
class Thresholds:
    """What a version must reach. A share is relative: 0.05 allows 5 % less."""

    min_recall: float = 0.0
    min_ndcg: float = 0.0
    over_popularity: float = 1.1
    """Recall must be at least this many times that of popularity."""
    max_drop: float = 0.05
    """Recall and NDCG may be this share below the active version's."""
    max_distance: float = 1e-3
    """Largest cosine distance between torch, the engine in the database, and what is stored."""


@dataclass(frozen=True)
class Verdict:
    """What was measured, and every reason to say no."""

    version: str
    measured_on: str
    metrics: dict[str, Any]
    parity: dict[str, float | None]
    reasons: list[str] = field(default_factory=list)


def judge(connection: Connection, version: str, thresholds: Thresholds | None = None, k: int = 20) -> Verdict:
    """Measure ``version`` and hold it against ``thresholds``. Raises UserError where there is no such version."""
    thresholds = thresholds or Thresholds()
    row = connection.execute(
        "select metrics, meta ->> 'trained_at' from two_tower.models where version = %s", (version,)
    ).fetchone()
    if row is None:
        raise UserError(f"there is no model version {version}", "list them with `two-tower model list`")
    recorded, trained_at = row
    recorded.pop("parity", None)  # the sample by which the database knows the files
    towers = load(connection, version)
    metrics = _since(connection, towers, datetime.fromisoformat(trained_at).timestamp(), k) if trained_at else None
    measured_on = "likes since it was trained" if metrics else "likes held out of its training"
    metrics = metrics or recorded
    compared = parity(connection, version, towers)
    return Verdict(
        version, measured_on, metrics, compared, _reasons(connection, version, metrics, compared, thresholds, k)
    )


def _reasons(
    connection: Connection,
    version: str,
    metrics: dict[str, Any],
    compared: dict[str, float | None],
    thresholds: Thresholds,
    k: int,
) -> list[str]:
    reasons = []
    recall, ndcg = f"recall@{k}", f"ndcg@{k}"
    own = metrics.get("two-tower", {})
    for name, least in ((recall, thresholds.min_recall), (ndcg, thresholds.min_ndcg)):
        if own.get(name) is None:
            reasons.append(f"{name} was not measured: there were no likes to hold out")
        elif own[name] < least:
            reasons.append(f"{name} is {own[name]:.4f}, and must be at least {least:.4f}")
    popular = metrics.get("popularity", {}).get(recall)
    if popular is not None and own.get(recall) is not None and own[recall] < thresholds.over_popularity * popular:
        reasons.append(
            f"{recall} is {own[recall]:.4f}, and must be at least "
            f"{thresholds.over_popularity:g} times popularity's {popular:.4f}"
        )
    incumbent = connection.execute(
        "select version, metrics -> 'two-tower' from two_tower.models where state = 'active' and version <> %s",
        (version,),
    ).fetchone()
    if incumbent:
        for name in (recall, ndcg):
            before = (incumbent[1] or {}).get(name)
            if before is not None and own.get(name) is not None and own[name] < (1 - thresholds.max_drop) * before:
                share = thresholds.max_drop
                reasons.append(
                    f"{name} is {own[name]:.4f}, more than {share:.0%} below the {before:.4f} of active {incumbent[0]}"
                )
    reasons += [
        f"{what} differ by a cosine distance of {distance:.2g}, and may by {thresholds.max_distance:g}"
        for what, distance in compared.items()
        if distance is not None and not distance <= thresholds.max_distance
    ]
    return reasons


@dataclass(frozen=True)
class Towers:
    """A registered version as torch computes it."""

    schema: FeatureSchema
    user: UserTower
    item: ItemTower


def load(connection: Connection, version: str) -> Towers:
    """The towers of ``version``, from safetensors."""
    row = connection.execute(
        "select content from two_tower.model_files where model_version = %s and name = 'weights.safetensors'",
        (version,),
    ).fetchone()
    if row is None:
        raise UserError(f"model {version} has no weights")
    keys: dict[str, tuple[str, ...]] = dict.fromkeys(VOCABULARIES, ())
    found = connection.execute(
        """select vocabulary, array_agg(key order by index)
        from two_tower.vocabularies where model_version = %s group by vocabulary""",
        (version,),
    )
    keys |= {name: tuple(listed) for name, listed in found}
    schema = FeatureSchema(keys)
    weights = load_tensors(bytes(row[0]))
    return Towers(
        schema, UserTower.load(schema, _part(weights, "user.")), ItemTower.load(schema, _part(weights, "item."))
    )


def _part(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _since(connection: Connection, towers: Towers, trained_at: float, k: int) -> dict[str, Any] | None:
    """Metrics on likes after ``trained_at`` (seconds), from histories before it; None where too few users have any."""
    data = read(connection, DatasetOptions(), towers.schema)
    after = data.time > trained_at
    relevant = data.matrix(LIKE, after)
    if int((np.diff(relevant.indptr) > 0).sum()) < FRESH_USERS:
        return None
    likes, nopes, skips = (data.matrix(label, ~after) for label in (1, 0, -1))
    users = towers.user.embed(user_counts(towers.schema, data.item_counts, likes, nopes))
    items = towers.item.embed(data.item_counts)
    references, _ = evaluate.references(likes)
    scorers = {"two-tower": evaluate.by_vectors(users, items)} | references
    return evaluate.report(scorers, likes, (likes + nopes + skips).tocsr(), relevant, k=k)


def parity(connection: Connection, version: str, towers: Towers | None = None) -> dict[str, float | None]:
    """Largest cosine distances in a sample of users and videos: torch to the engine, the engine to what is stored.

    None where there is nothing to compare. Changes that no refresh has seen yet are left out of the sample.
    """
    towers = towers or load(connection, version)
    result: dict[str, float | None] = {}
    for kind, tower in (("user", towers.user), ("video", towers.item)):
        rows = connection.execute(
            psycopg.sql.SQL(
                """with sample as (
                    select id from (select {id} as id from {source}) as known
                    where not exists (select from two_tower.{waiting} c where c.{id_} = known.id) and {settled}
                    order by hashtextextended(id::text, 0) limit {size}
                ),
                -- From the rows as they are: what is stored of an input is not asked.
                inputs as (
                    select array_agg(e.{id_}) as ids, array_agg(e.input) as inputs
                    from two_tower.{encode}(
                        array(select c from two_tower.{count}(array(select id from sample)) c), {version}
                    ) e
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
                # A changed video changes its likers, too.
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
                count=psycopg.sql.Identifier(f"count_{kind}_features"),
                stored=psycopg.sql.Identifier(f"{kind}_embeddings"),
                size=psycopg.sql.Literal(SAMPLE),
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
    return float(max(0.0, (1 - cosine).max()))
