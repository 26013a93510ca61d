#!/usr/bin/env python3
"""What each idea behind the towers is worth, on a validation split of a decisions file.

    PYTHONPATH=py python docs/ablation.py decisions.csv.gz

A fifth of the rows is held out at random, twice. A row of the output leaves one idea out and takes the better of the
ridges given with it; EASE^R at full rank is the last.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import torch
from scipy import sparse

from two_tower.trainer import evaluate, linear
from two_tower.trainer.linear import HistoryModel, to_torch
from two_tower.trainer.model import INNER

LABELS = ("LIKE", "NOPE", "SKIP")


def read(path: str, seed: int) -> tuple[list[sparse.csr_matrix], sparse.csr_matrix]:
    """Likes, nopes, skips to train on, and held-out likes: [n_users, n_items], of items liked in training."""
    rows = pl.read_csv(path)
    user, item = (rows[name].cast(pl.Categorical).to_physical().to_numpy() for name in ("user_id", "product_url"))
    shape = int(user.max()) + 1, int(item.max()) + 1
    decision, held = rows["decision"].to_numpy(), np.random.default_rng(seed).random(len(rows)) < 0.2

    def matrix(keep: np.ndarray) -> sparse.csr_matrix:
        return sparse.csr_matrix((np.ones(keep.sum(), np.float32), (user[keep], item[keep])), shape)

    train = [matrix((decision == label) & ~held) for label in LABELS]
    liked = np.flatnonzero(linear.column_sums(train[0]))
    return [m[:, liked] for m in train], matrix((decision == "LIKE") & held)[:, liked]


def main(path: str) -> None:
    splits = [read(path, seed) for seed in (1, 2)]

    def ranked(scorer: evaluate.Scorer, train: list[sparse.csr_matrix], relevant: sparse.csr_matrix) -> np.ndarray:
        found = evaluate.rank(scorer, relevant, (train[0] + train[1] + train[2]).tocsr(), auc=False).mean()
        return np.array([found["recall@20"], found["ndcg@20"]])

    def row(
        name: str,
        ridges: tuple[float, ...] = (40.0, 80.0),
        *,
        rank: int = INNER,
        dense: int = linear.DENSE,
        change: Callable[[HistoryModel], None] | None = None,
        inputs: dict[str, Any] | None = None,
        targets: dict[str, Any] | None = None,
    ) -> None:
        before, linear.DENSE = linear.DENSE, dense
        best = []
        for train, relevant in splits:
            model = HistoryModel(*train, **(inputs or {}))
            if change:
                change(model)
            scores = []
            for ridge in ridges:
                factors = model.solve(ridge, rank, **(targets or {}))
                taste = to_torch(train[0]) @ factors.like + to_torch(train[1]) @ factors.nope
                scores.append(ranked(evaluate.by_vectors(taste.numpy(), factors.item.numpy()), train, relevant))
            best.append(max(scores, key=lambda score: float(score.sum())))
        linear.DENSE = before
        show(name, np.mean(best, axis=0))

    def show(name: str, scores: np.ndarray) -> None:
        print(f"{name:42} {scores[0]:.4f} {scores[1]:.4f}", flush=True)

    def level_users(model: HistoryModel) -> None:
        model.user_weight = torch.ones_like(model.user_weight)

    def level_items(model: HistoryModel) -> None:
        model.item_weight = torch.ones_like(model.item_weight)

    def level(model: HistoryModel) -> None:
        level_users(model)
        level_items(model)

    liked_alone: dict[str, Any] = {"skip_target": 0.0, "nope_target": 0.0}
    row("everything")
    row("- scores below zero counted", dense=0)
    row("- users weighted in the factorisation", change=level_users)
    row("- items weighted in the factorisation", change=level_items)
    row("- skips and nopes in the target", targets=liked_alone)
    row("- nopes in the input", inputs={"nope_input": 1e-6})
    row("- users weighted in the regression", (80.0, 160.0), inputs={"user_power": 0.0})
    plain = {"nope_input": 1e-6, "user_power": 0.0}
    row("- all of these", (80.0, 150.0, 250.0), dense=0, change=level, inputs=plain, targets=liked_alone)
    row("63 dimensions", rank=63)
    row("255 dimensions", rank=255)
    for ridge in (100.0, 150.0, 250.0):
        scores = [ranked(evaluate.by_ease(train[0], ridge), train, relevant) for train, relevant in splits]
        show(f"EASE^R, full rank, {ridge:g}", np.mean(scores, axis=0))


if __name__ == "__main__":
    main(sys.argv[1])
