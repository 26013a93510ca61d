"""Fit both towers to a :class:`~two_tower.features.TrainingData`.

1. Split each user's interactions; train on the rest; choose the ridge strengths by NDCG@20 on what was held out.
2. Fit again on everything with what was chosen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import sparse

from . import evaluate
from .features import ITEM_NUMERIC, LIKE, NOPE, SKIP, FeatureSchema, TrainingData, user_counts
from .linear import Factors, HistoryModel
from .model import INNER, ItemTower, UserTower

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of it done, 0 to 1."""


@dataclass(frozen=True)
class TrainOptions:
    """What a caller may choose; the defaults are meant to hold on any data."""

    seed: int = 0
    val_ratio: float = 0.2
    """Share of each user's interactions held out to choose hyperparameters and to report metrics."""
    min_likes: int = 5
    """Users with fewer likes keep all of them in training."""
    k: int = 20
    ridges: tuple[float, ...] = (30.0, 100.0, 300.0)
    """Strengths tried, in likes."""
    content_ridges: tuple[float, ...] = (3.0, 10.0, 30.0, 100.0)
    """Strengths tried for the way from content to places, in items."""


@dataclass
class TrainedModel:
    """Both towers and what they were made of."""

    user_tower: UserTower
    item_tower: ItemTower
    schema: FeatureSchema
    metrics: dict[str, Any]
    """Of the validation split, by towers that had not seen it."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry per candidate that was tried."""
    hyperparameters: dict[str, Any] = field(default_factory=dict)

    def normalizer(self) -> dict[str, Any]:
        """``normalizer.json``: the constants that are baked into the graphs."""
        mean, deviation = self.item_tower.mean.tolist(), self.item_tower.deviation.tolist()
        return {
            "item_numeric": {
                name: {"transform": "log1p, z-score, clip to 5; 0 is unknown", "mean": m, "std": d}
                for name, m, d in zip(ITEM_NUMERIC, mean, deviation, strict=True)
            },
            "output": "L2",
        }


def split(data: TrainingData, *, ratio: float, min_likes: int, seed: int) -> np.ndarray:
    """[n] bool: the rows held out. Per user the latest ``ratio`` of the rows; where all times are equal, a random part.

    Users with fewer than ``min_likes`` likes keep everything.
    """
    rng = np.random.default_rng(seed)
    n = len(data.user)
    order = np.lexsort((rng.random(n), data.time, data.user))
    user = data.user[order]
    count = np.bincount(user, minlength=data.n_users)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    place = np.arange(n) - first[user]  # within the user, oldest first
    likes = np.bincount(data.user[data.label == LIKE], minlength=data.n_users)
    kept = np.where(likes < min_likes, count, np.ceil(count * (1 - ratio)))
    held = np.zeros(n, dtype=bool)
    held[order] = place >= kept[user]
    return held


def fit(data: TrainingData, options: TrainOptions | None = None, progress: Progress | None = None) -> TrainedModel:
    """Train on ``data``. The same data, options, machine and thread count give the same model, bit for bit."""
    options = options or TrainOptions()
    tell = progress or (lambda what, share: None)
    started = time.monotonic()
    torch.manual_seed(options.seed)
    held = split(data, ratio=options.val_ratio, min_likes=options.min_likes, seed=options.seed)
    history: list[dict[str, Any]] = []

    tell("spectrum of the training part", 0.0)
    part = _Part(data, ~held, options.seed)
    relevant, seen = data.matrix(LIKE, held), part.seen()
    best: tuple[float, float, UserTower, ItemTower] | None = None
    for step, ridge in enumerate(options.ridges):
        tell(f"ridge {ridge:g}", 0.2 + 0.1 * step)
        towers = part.towers(ridge, options.content_ridges[1])
        score = rank(towers, part, relevant, seen, options.k).mean()[f"ndcg@{options.k}"] if relevant.nnz else 0.0
        history.append({"ridge": ridge, "ndcg": score})
        if best is None or score > best[0]:
            best = (score, ridge, *towers)
    assert best is not None
    _, ridge, *towers = best
    tell("measuring", 0.5)
    users, items = part.embed((towers[0], towers[1]))
    metrics: dict[str, Any] = {}
    if relevant.nnz:
        model = {"two-tower": evaluate.by_vectors(users, items)}
        metrics = evaluate.report(model, part.likes, seen, relevant, k=options.k, seed=options.seed)["two-tower"]
    tell("fitting to everything", 0.6)
    user_tower, item_tower = _Part(data, np.ones(len(data.user), dtype=bool), options.seed).towers(
        ridge, options.content_ridges[1]
    )
    tell("done", 1.0)
    chosen = {"ridge": ridge, "content_ridge": options.content_ridges[1], "seconds": time.monotonic() - started}
    return TrainedModel(user_tower, item_tower, data.schema, metrics, history, chosen)


def rank(
    towers: tuple[UserTower, ItemTower], part: _Part, relevant: sparse.csr_matrix, seen: sparse.csr_matrix, k: int
) -> evaluate.Ranking:
    """Metrics of ``towers`` on held-out likes."""
    users, items = part.embed(towers)
    return evaluate.rank(evaluate.by_vectors(users, items), relevant, seen, k=k, auc=False)


class _Part:
    """The rows to train on, as matrices, with the work that all ridge strengths share."""

    def __init__(self, data: TrainingData, rows: np.ndarray, seed: int) -> None:
        self.data = data
        self.likes, self.nopes, self.skips = (data.matrix(label, rows) for label in (LIKE, NOPE, SKIP))
        identity = data.schema.segment("item", "id")
        ids = data.item_counts[:, identity.slice]  # [n_items, n_videos]
        self.model = HistoryModel(
            (self.likes @ ids).tocsr(), (self.nopes @ ids).tocsr(), (self.skips @ ids).tocsr(), seed=seed
        )
        self.ids = ids
        self.weight = np.asarray((self.likes @ ids).sum(axis=0)).ravel()  # [n_videos]

    def seen(self) -> sparse.csr_matrix:
        return (self.likes + self.nopes + self.skips).tocsr()

    def embed(self, towers: tuple[UserTower, ItemTower]) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors of all users [n_users, DIM], from this part's history alone, and of all items [n_items, DIM]."""
        counts = user_counts(self.data.schema, self.data.item_counts, self.likes, self.nopes)
        return towers[0].embed(counts), towers[1].embed(self.data.item_counts)

    def towers(self, ridge: float, content_ridge: float) -> tuple[UserTower, ItemTower]:
        return assemble(self.data, self.model.solve(ridge, INNER), self.ids, self.weight, self.likes, content_ridge)


@torch.no_grad()
def assemble(
    data: TrainingData,
    factors: Factors,
    ids: sparse.csr_matrix,
    weight: np.ndarray,
    likes: sparse.csr_matrix,
    content_ridge: float,
) -> tuple[UserTower, ItemTower]:
    """Towers whose scores are those of ``factors``, with the places of unknown items regressed on content."""
    schema = data.schema
    user_tower, item_tower = UserTower(schema), ItemTower(schema)
    rank_ = factors.item.shape[1]
    longest = factors.item.norm(dim=1).max().clamp(min=1e-12)

    numeric = torch.from_numpy(data.item_counts[:, : len(ITEM_NUMERIC)].toarray())
    for i in range(len(ITEM_NUMERIC)):
        known = torch.log1p(numeric[:, i][numeric[:, i] > 0])
        if len(known) > 1 and float(known.std()) > 0:
            item_tower.mean[i], item_tower.deviation[i] = known.mean(), known.std()
    item_tower.own[:, :rank_] = factors.item / longest

    # Content -> place, a ridge regression over the known items, those with more likes counting more.
    of_video = ids.T.tocsr()  # [n_videos, n_items]
    content = torch.from_numpy((of_video @ data.item_counts)[:, : item_tower.stop].toarray())
    features = torch.cat([item_tower.content(content), torch.ones(len(content), 1)], dim=1)
    certain = torch.from_numpy(weight / (weight + 10)).float()[:, None]
    gram = features.T @ (certain * features)
    gram.diagonal()[:-1].add_(content_ridge)
    gram.diagonal().add_(1e-3)
    solution = torch.linalg.solve(gram, features.T @ (certain * item_tower.own))  # [width + 1, INNER]
    item_tower.linear.weight.copy_(solution[:-1].T)
    item_tower.linear.bias.copy_(solution[-1])

    # The same for the history: what a liked video without an id of its own adds is regressed on the counts it adds.
    counted = schema.segment("user", "liked_video_ids").offset
    start = schema.segment("user", "liked_tags").offset
    features = torch.cat([torch.ones(len(content), 1), content[:, len(ITEM_NUMERIC) :]], dim=1)  # like_count, tags, ...
    gram = features.T @ (certain * features)
    gram.diagonal().add_(content_ridge)
    solution = torch.linalg.solve(gram, features.T @ (certain * factors.like))
    n_videos = len(content)
    user_tower.weight[0, :rank_] = solution[0]
    user_tower.weight[start:counted, :rank_] = solution[1:]
    user_tower.weight[counted : counted + n_videos, :rank_] = factors.like - features @ solution
    user_tower.weight[counted + n_videos :, :rank_] = factors.nope
    mean = torch.from_numpy(np.asarray((likes @ ids).mean(axis=0), dtype=np.float32)).reshape(1, -1) @ factors.like
    user_tower.bias[:rank_] = 0.1 * mean[0]
    return user_tower, item_tower
