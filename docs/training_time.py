#!/usr/bin/env python3
"""Wall time of a training beside that of EASE^R and of implicit's ALS, on what a database holds, one after the other.

    pip install implicit
    python docs/training_time.py                  # DATABASE_URL, or the embedded server of this directory

Times are of fitting alone: nothing is measured, and reading the data is not in them. The towers are fitted with every
default, so their search and both fits count; EASE^R is one inverse of items x items, in numpy and double precision, as
published; ALS has 128 factors and 15 iterations. Each is done ROUNDS times, in turns, and the median is printed.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from two_tower.features import LIKE
from two_tower.server.connection import connect
from two_tower.trainer import dataset
from two_tower.trainer.train import fit

ROUNDS = 3


def main() -> None:
    try:
        from implicit.als import AlternatingLeastSquares
    except ImportError:
        sys.exit("implicit is not installed: pip install implicit")
    with connect(None) as connection:
        data = dataset.read(connection)
    likes = data.matrix(LIKE, np.ones(len(data.user), dtype=bool))  # [n_users, n_items]

    def towers() -> float:
        return float(fit(data).hyperparameters["seconds"])

    def ease() -> None:
        gram = (likes.T @ likes).toarray().astype(np.float64)
        gram[np.diag_indices_from(gram)] += 150.0
        inverse = np.linalg.inv(gram)
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0.0)

    def als() -> None:
        AlternatingLeastSquares(factors=128, iterations=15, random_state=0).fit(likes, show_progress=False)

    def clocked(work: Callable[[], None]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    took: dict[str, list[float]] = {"two towers": [], "EASE^R": [], "ALS": []}
    for _ in range(ROUNDS):
        took["two towers"].append(towers())
        took["EASE^R"].append(clocked(ease))
        took["ALS"].append(clocked(als))
    for name, seconds in took.items():
        print(f"{name:12} {statistics.median(seconds):7.2f} s   of {', '.join(f'{s:.2f}' for s in seconds)}")
    allowed = statistics.median(took["EASE^R"]) + 5 * statistics.median(took["ALS"])
    print(f"EASE^R + 5 x ALS: {allowed:.2f} s")


if __name__ == "__main__":
    main()
