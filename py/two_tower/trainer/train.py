"""Fit both towers to a :class:`~two_tower.features.TrainingData`.

1. Hold out a part of each user's interactions, the newest if times differ, or all from one point in time on. With the
   rest, choose the source of the factors, the ridge, the values of skips and nopes, the number of neighbours of a
   video, how much more newer decisions count, the weight of what is popular, and how content places a new item, each by
   how well the complete score ranks the held-out likes.
2. On request, continue by gradients (:mod:`two_tower.trainer.gradient`) and keep the epoch that ranks them best, which
   may be epoch 0.
3. Measure the chosen towers on the held-out part, then fit again on everything.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from scipy import sparse

from two_tower.errors import UserError
from two_tower.features import ITEM_NUMERIC, LIKE, FeatureSchema, TrainingData
from two_tower.progress import Progress
from two_tower.trainer import gradient
from two_tower.trainer.gradient import Processes
from two_tower.trainer.model import ItemTower, UserTower
from two_tower.trainer.options import Choice, TrainOptions
from two_tower.trainer.part import Part
from two_tower.trainer.splits import split, split_in_time
from two_tower.trainer.stepwise import StepwiseSearch


@dataclass
class TrainedModel:
    """Both towers and how they were fitted."""

    user_tower: UserTower
    item_tower: ItemTower
    schema: FeatureSchema
    metrics: dict[str, Any]
    """Recommender -> metrics on the validation split, for ``two-tower``, with towers trained without it, and for the
    references. Empty without a split."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry per candidate that was tried, and per epoch of gradients, in order."""
    epochs: list[dict[str, Any]] = field(default_factory=list)
    """The results of each epoch of the measured training, see :data:`~two_tower.trainer.gradient.Told`."""
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    neighbours: sparse.csr_matrix | None = None
    """[videos, videos] over the vocabulary: what a like of the row's video adds to the score of the column's."""

    def loss(self) -> dict[str, Any]:
        """``loss`` of ``model_meta.json``: its name and its value by epoch, on held-out rows if there are any."""
        gradients = self.hyperparameters.get("gradient")
        if not gradients or not self.hyperparameters["best_epoch"]:
            return {"name": "squared error, in closed form", "validation": None, "epochs": self.epochs}
        kept = [e["val_loss"] for e in self.epochs if e["epoch"] == self.hyperparameters["best_epoch"]]
        return {"name": gradients["loss"], "validation": kept[0] if kept else None, "epochs": self.epochs}

    def normalizer(self) -> dict[str, Any]:
        """``normalizer.json``: the constants that are baked into the graphs."""
        mean, divisor = self.item_tower.mean.tolist(), self.item_tower.divisor.tolist()
        used = self.item_tower.used.tolist()
        return {
            "item_numeric": {
                name: {
                    "transform": "(log1p(x) - mean) / divisor, clipped to 5; 0 is unknown",
                    "mean": m,
                    "divisor": d,
                    "used": bool(u),
                }
                for name, m, d, u in zip(ITEM_NUMERIC, mean, divisor, used, strict=True)
            },
            "output": "L2",
        }


@torch.no_grad()
def fit(
    data: TrainingData,
    options: TrainOptions | None = None,
    progress: Progress | None = None,
    processes: Processes | None = None,
    *,
    held: np.ndarray | None = None,
    told: gradient.Told = lambda epoch: None,
    to_register: bool = False,
) -> TrainedModel:
    """Train on ``data``. The same data, options, machine and thread count give the same model, bit for bit.

    ``held`` [n] bool: the rows to hold out instead of those by the options. ``told`` gets the epochs of gradients.
    Raises UserError if ``data`` is to be split in time and cannot be, and, with ``to_register``, if nothing could be
    measured: before the work, since no database takes such a model. Of several ``processes``, only rank 0 calls this.
    """
    options = options or TrainOptions()
    processes = processes or Processes()
    tell = progress or (lambda what, share: None)
    started = time.monotonic()
    deadline = started + options.max_seconds
    given, in_time = held is not None, held is None and options.split == "temporal"
    if held is None and in_time:
        held = split_in_time(data, ratio=options.val_ratio)
    elif held is None:
        held = split(data, ratio=options.val_ratio, min_likes=options.min_likes, seed=options.seed)
    # Users without a history before the split are left out: nothing is known that could predict their likes.
    asked = held & np.isin(data.user, data.user[~held])
    liked = data.label == LIKE
    known = np.diff(data.item_counts[:, data.schema.segment("item", "id").slice].tocsr().indptr) > 0
    known &= np.bincount(data.item[liked & ~held], minlength=data.n_items) > 0
    measurable = bool(known[data.item[liked & asked]].any())
    if in_time and not measurable:
        raise UserError(
            "nobody with a history before the point in time liked anything after it",
            "hold out more with --val-ratio, or split by user: --split user",
        )
    if given and not measurable:
        raise UserError(
            "nothing can be measured on what is held out: none of it is a like by somebody, and of something liked, in"
            " what is trained on",
            "give --val likes of users and items that --train has, too, or leave it out",
        )
    if to_register and not measurable:
        raise unmeasured()
    choice, recipe, metrics, history = Choice(), options.recipe(), dict[str, Any](), list[dict[str, Any]]()
    best_epoch, searched, guess = recipe.epochs if recipe else 0, dict[str, Any](), None
    epochs: list[dict[str, Any]] = []
    if measurable:
        tell("reading the histories", 0.0)
        trials = StepwiseSearch(data, held, asked, options, tell, deadline, processes, told)
        choice = trials.run(by_gradients=recipe is not None)
        if options.search:
            choice, recipe, searched = trials.tune(choice, recipe)
        tell("fitting what is measured", 0.6)
        user_tower, item_tower, neighbours, best_epoch, scores = trials.fitted(choice, recipe)
        if best_epoch and neighbours is not None:
            # Neighbours correct the factors, not towers trained by gradients, so these have none.
            closed = trials.fitted(choice, None)
            if trials.judge(*closed[:3], choice.recency) >= max(scores):
                user_tower, item_tower, neighbours, best_epoch, _ = closed
            else:
                choice, neighbours = replace(choice, neighbours=0), None
        tell("measuring", 0.65)
        before = time.monotonic()
        metrics, history = trials.measure(user_tower, item_tower, neighbours, choice.recency), trials.history
        epochs = trials.epochs
        started += time.monotonic() - before  # references do not count as training
        guess = trials.part.guess
        del trials, user_tower, item_tower, neighbours
    tell("fitting to everything", 0.7)
    part = Part(data, np.ones(len(data.user), dtype=bool), options, guess)
    factors = part.factors(choice)
    user_tower, item_tower = part.towers(choice, factors)
    neighbours = part.neighbours(choice, factors)
    if recipe and best_epoch:
        tell(f"{best_epoch} epochs", 0.8)
        gradient.train(user_tower, item_tower, part.examples(), recipe, until=best_epoch, processes=processes)
    tell("done", 1.0)
    chosen = asdict(options) | asdict(choice) | {"hidden": len(item_tower.centres)} | searched
    del chosen["study"]  # a path of this machine
    if recipe:
        chosen |= {"gradient": asdict(recipe), "best_epoch": best_epoch}
    chosen["held_out"] = "as given" if given else _held_out(data, held, options.split)
    if in_time:
        chosen["split_at"] = datetime.fromtimestamp(data.time[held].min(), UTC).isoformat()
    chosen["seconds"] = time.monotonic() - started
    schema = replace(data.schema, recency=choice.recency)
    return TrainedModel(user_tower, item_tower, schema, metrics, history, epochs, chosen, neighbours)


def unmeasured() -> UserError:
    """The error for a model without metrics."""
    return UserError(
        "the model cannot be measured: no like can be held out of a video that others like, too",
        "it takes users with five likes or more who like some of the same; collect more likes first",
    )


def _held_out(data: TrainingData, held: np.ndarray, split: str) -> str:
    """What the metrics were measured on, in words."""
    if split == "temporal":
        return "all from one point in time on"
    return "the newest of each user" if data.places()[~held].any() else "a random part of each user's"
