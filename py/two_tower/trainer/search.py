"""``two-tower train --search N``: hyperparameters by trials on the validation split, with optuna's TPE.

Trials are kept in an SQLite file and counted over all runs, so the same command continues after an interruption. A
study belongs to data, split and kind of training: with other data the same file starts another one.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from two_tower.errors import UserError
from two_tower.features import TrainingData
from two_tower.progress import Progress

if TYPE_CHECKING:
    import optuna

    from two_tower.trainer.gradient import Recipe
    from two_tower.trainer.options import Choice, TrainOptions

CHOICE = {
    "ridge": (5.0, 2000.0, True),
    "user_power": (0.0, 0.8, False),
    "nope_input": (0.05, 1.0, False),
    "skip_target": (0.0, 0.8, False),
    "nope_target": (0.0, 0.6, False),
    "popular": (0.01, 10.0, True),
    "bandwidth": (0.1, 4.0, True),
    "content_ridge": (0.01, 3.0, True),
    "novelty": (0.2, 1.2, False),
    "prior": (0.05, 50.0, True),
    "hint": (0.0, 300.0, False),
}
"""Ranges for the closed form: name -> lowest, highest, whether on a logarithmic scale."""

RECIPE = {
    "rate": (1e-3, 0.2, True),
    "dropout": (0.1, 0.9, False),
    "id_dropout": (0.01, 0.5, False),
    "decay": (1e-4, 0.1, True),
    "nope_weight": (0.0, 4.0, False),
}
"""Ranges for the gradients, if they are used."""

Trial = Callable[["Choice", "Recipe | None"], float]


def tune(
    trial: Trial,
    start: Choice,
    recipe: Recipe | None,
    data: TrainingData,
    options: TrainOptions,
    tell: Progress,
) -> tuple[Choice, Recipe | None, dict[str, Any]]:
    """The best of ``options.search`` trials, the first of which is ``start``, and a record of them.

    Raises UserError if the study cannot be stored.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    began = time.monotonic()
    study = _open(options, _name(data, options, recipe))
    ranges = CHOICE | (RECIPE if recipe else {})

    def values_of(choice: Choice, recipe: Recipe | None) -> dict[str, float]:
        found = {name: getattr(choice, name) for name in CHOICE}
        found |= {name: getattr(recipe, name) for name in RECIPE} if recipe else {}
        return {name: min(max(found[name], low), high) for name, (low, high, _) in ranges.items()}

    def with_values(values: dict[str, Any]) -> tuple[Choice, Recipe | None]:
        choice = replace(start, **{name: values[name] for name in CHOICE})
        return choice, recipe and replace(recipe, **{name: values[name] for name in RECIPE})

    def objective(asked: optuna.Trial) -> float:
        values = {name: asked.suggest_float(name, low, high, log=log) for name, (low, high, log) in ranges.items()}
        return trial(*with_values(values))

    while (done := len(_finished(study))) < options.search:
        if options.search_timeout is not None and done and time.monotonic() - began >= options.search_timeout:
            break
        tell(f"trial {done + 1} of {options.search}", min(0.6, 0.3 + 0.3 * done / options.search))
        # A resumed search does not repeat the draws of the run before.
        study.sampler = optuna.samplers.TPESampler(seed=options.seed + done, n_startup_trials=8)
        if done == 0:
            study.enqueue_trial(values_of(start, recipe))
        study.optimize(objective, n_trials=1)
    best = study.best_trial
    noted = {
        "trials": len(_finished(study)),
        "best_trial": best.number,
        "best_score": best.value,
        "search_seconds": time.monotonic() - began,
    }
    return *with_values(best.params), noted


def _open(options: TrainOptions, name: str) -> optuna.Study:
    import optuna

    path = Path(options.study)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        return optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)
    except Exception as error:  # of the file system, SQLite, SQLAlchemy or alembic
        raise UserError(
            f"the study cannot be kept in {path}: {str(error).splitlines()[0]}", "name another file with --study PATH"
        ) from error


def _finished(study: optuna.Study) -> list[Any]:
    return [t for t in study.trials if t.state.is_finished() and t.value is not None and math.isfinite(t.value)]


def _name(data: TrainingData, options: TrainOptions, recipe: Recipe | None) -> str:
    """The study of this data, split and kind of training."""
    digest = hashlib.sha256()
    for rows in (data.user, data.item, data.label, data.time, data.item_counts.indices, data.item_counts.data):
        digest.update(rows.tobytes())
    if data.profile is not None:
        digest.update(data.profile.indices.tobytes())
    kind = (options.split, options.val_ratio, options.min_likes, options.seed, options.k, options.use_price_feature)
    gradients = recipe and (recipe.epochs, recipe.loss, recipe.neg_per_pos)
    digest.update(repr((kind, gradients)).encode())
    return digest.hexdigest()[:16]
