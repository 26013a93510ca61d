"""Which interactions are held out to choose hyperparameters and to measure, and samples of users to measure on."""

from __future__ import annotations

import numpy as np

from two_tower.errors import UserError
from two_tower.features import LIKE, SKIP, TrainingData


def split(data: TrainingData, *, ratio: float, min_likes: int, seed: int) -> np.ndarray:
    """[n] bool: the rows held out. Per user the latest ``ratio`` of the rows; if all times are equal, a random part.

    Users with fewer than ``min_likes`` likes keep everything.
    """
    rng = np.random.default_rng(seed)
    n = len(data.user)
    order = np.lexsort((rng.random(n), data.time, data.user))
    user = data.user[order]
    count = np.bincount(user, minlength=data.n_users)
    first = np.cumsum(count) - count
    place = np.arange(n) - first[user]  # within the user, oldest first
    likes = np.bincount(data.user[data.label == LIKE], minlength=data.n_users)
    kept = np.where(likes < min_likes, count, np.ceil(count * (1 - ratio)))
    held = np.zeros(n, dtype=bool)
    held[order] = place >= kept[user]
    return held


def split_in_time(data: TrainingData, *, ratio: float) -> np.ndarray:
    """[n] bool: the rows held out, all from one point in time on: that of the newest ``ratio`` of likes and nopes.

    Rows of exactly that time are all on the same side; an unknown time counts as before. Raises UserError if there is
    no such point.
    """
    times = np.sort(data.time[data.label != SKIP])
    later = times[times > times[0]] if len(times) else times
    if len(later) == 0:
        raise UserError(
            "there is no point in time to split at: all likes and nopes have the same time, or none",
            "import decisions or reviews with created_at, or split by user: --split user",
        )
    return data.time >= max(times[min(int(np.ceil(len(times) * (1 - ratio))), len(times) - 1)], later[0])


def sample(n: int, most: int, seed: int) -> np.ndarray:
    """A random sample of at most ``most`` of ``range(n)``, in order."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))
