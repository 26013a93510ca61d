"""What a like of one video says of every other: a regression between videos, and its split into factors and neighbours.

The regression is EASE^R (Steck 2019, "Embarrassingly shallow autoencoders for sparse data", WWW) in which a user's row
counts for less the more it holds, and the ridge of a video grows with its likes. Up to :data:`EXACT` videos it is
solved whole. Above, every video has a regression of its own, on those most often liked along with it (Ning, Karypis
2011, "SLIM: sparse linear methods for top-n recommender systems", ICDM, there with feature selection), or none: with a
ridge that outweighs everything, what is left is how often two videos are liked together, in powers of their likes (Fu
et al. 2022, "Revisiting neighborhood-based link prediction for collaborative filtering", WWW). Memory is then that of
:data:`CANDIDATES` numbers per video.

127 dimensions hold the coarse part of such a table. The largest entries that they leave, a few per video, go beside
them as neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch
from scipy import sparse

from two_tower.trainer.linear import Factors, column_sums, low_rank_svd, to_torch

EXACT = 8_000
"""Videos up to which the regression is solved whole: it holds three matrices of videos x videos."""

LOCAL = 20_000
"""Videos up to which a search tries regressions of every one, which take half a millisecond each."""

CANDIDATES = 1_000
"""Entries that a row of a larger table keeps, at most."""

COLUMNS = 0.7
"""Power of the likes by which the column of a table without a ridge is divided, in powers of its row."""

REGRESSORS = 150
"""Videos on which a video of a larger table is regressed."""

SCORES = 60_000_000
"""Scores that are factorised at once, unless those are of fewer than :data:`LEAST_ROWS` users."""

LEAST_ROWS = 2_000

Table: TypeAlias = np.ndarray | sparse.csr_matrix
"""[n_videos, n_videos]: row = the liked video, column = the one whose score it adds to; the diagonal is zero."""


def tables(
    likes: sparse.csr_matrix, ridges: Sequence[float], *, user_power: float, item_power: float
) -> Iterator[Table]:
    """The table of the histories ``likes`` [n_users, n_videos] of ones, for one ridge after the other; 0 is none.

    A user's row weighs ``like_count ** -user_power``; the ridge of a video is ``ridge * like_count ** (2 item_power)``,
    counts in multiples of their mean. Without a ridge a table counts who likes both, divided by
    ``like_count ** item_power`` of the liked one and ``like_count ** (COLUMNS item_power)`` of the other.
    """
    weighted, items = _weighted(likes, user_power, item_power)
    local = [ridge for ridge in ridges if ridge]
    if local and len(items) > EXACT:
        solved: Iterator[Table] = (_rescaled(found, items) for found in _local(weighted, local))
    else:
        solved = (_rescaled(_exact(weighted, ridge), items) for ridge in local)
    for ridge in ridges:
        yield next(solved) if ridge else _together(weighted, items ** (COLUMNS - 1))


def _weighted(likes: sparse.csr_matrix, user_power: float, item_power: float) -> tuple[sparse.csr_matrix, np.ndarray]:
    """The histories with weighted rows and columns, and the weights of the columns [n_videos]."""
    users = _power(np.asarray(likes.sum(axis=1)).ravel(), -user_power / 2)
    items = _power(column_sums(likes), -item_power)
    return (sparse.diags(users) @ likes @ sparse.diags(items)).tocsr().astype(np.float32), items


def _power(count: np.ndarray, exponent: float) -> np.ndarray:
    count = np.maximum(count, 1)
    return ((count / count.mean()) ** exponent).astype(np.float32)


def _rescaled(solved: Table, items: np.ndarray) -> Table:
    if isinstance(solved, np.ndarray):
        return items[:, None] * solved / items
    return (sparse.diags(items) @ solved @ sparse.diags(1 / items)).tocsr()


def _exact(weighted: sparse.csr_matrix, ridge: float) -> np.ndarray:
    gram = torch.from_numpy((weighted.T @ weighted).toarray())
    gram.diagonal().add_(ridge)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    return (-inverse / inverse.diagonal()).fill_diagonal_(0).numpy()


def _local(weighted: sparse.csr_matrix, ridges: Sequence[float], block: int = 1_000) -> list[sparse.csr_matrix]:
    """Every column by ridge on the :data:`REGRESSORS` whose columns have the largest products with it."""
    by_item, transposed = weighted.tocsc(), weighted.T.tocsr()
    n_items = weighted.shape[1]
    columns: list[np.ndarray] = []
    weights: list[list[np.ndarray]] = [[] for _ in ridges]
    for start in range(0, n_items, block):
        gram = (transposed[start : start + block] @ weighted).tocsr()
        products = _largest(_without_diagonal(gram, start), REGRESSORS)
        for row in range(products.shape[0]):
            within = slice(products.indptr[row], products.indptr[row + 1])
            others, target = products.indices[within], torch.from_numpy(products.data[within])[:, None]
            columns.append(others)
            if len(others) == 0:
                continue
            length = by_item.indptr[others + 1] - by_item.indptr[others]
            first = np.cumsum(length) - length
            at = np.repeat(by_item.indptr[others] - first, length) + np.arange(length.sum())
            users, user = np.unique(by_item.indices[at], return_inverse=True)
            if len(users) * len(others) <= 2_000_000:
                histories = torch.zeros(len(others), len(users))
                histories[np.repeat(np.arange(len(others)), length), user] = torch.from_numpy(by_item.data[at])
                between = histories @ histories.T
            else:
                some = by_item[:, others]
                between = torch.from_numpy((some.T @ some).toarray())
            diagonal = between.diagonal().clone()
            for found, ridge in zip(weights, ridges, strict=True):
                between.diagonal().copy_(diagonal + ridge)
                factor = torch.linalg.cholesky(between)
                found.append(torch.cholesky_solve(target, factor).numpy().ravel())
    indptr = np.concatenate([[0], np.cumsum([len(c) for c in columns])])
    indices = np.concatenate([np.zeros(0, dtype=np.int32), *columns])
    shape = (n_items, n_items)
    return [
        sparse.csr_matrix((np.concatenate([np.zeros(0, dtype=np.float32), *found]), indices, indptr), shape).T.tocsr()
        for found in weights
    ]


def _together(weighted: sparse.csr_matrix, columns: np.ndarray, block: int = 1_000) -> sparse.csr_matrix:
    """The :data:`CANDIDATES` largest entries of each row of ``weighted' weighted``, columns times ``columns``."""
    transposed, parts = weighted.T.tocsr(), []
    weighted = (weighted @ sparse.diags(columns)).tocsr()
    for start in range(0, len(columns), block):
        part = (transposed[start : start + block] @ weighted).tocsr()
        parts.append(_largest(_without_diagonal(part, start), CANDIDATES))
    return sparse.vstack(parts, format="csr", dtype=np.float32)


def _without_diagonal(part: sparse.csr_matrix, start: int) -> sparse.csr_matrix:
    """Rows from ``start`` on of a square matrix, zero where a row is its column."""
    row = np.repeat(np.arange(start, start + part.shape[0]), np.diff(part.indptr))
    part.data[part.indices == row] = 0
    return part


def _largest(matrix: sparse.csr_matrix, most: int) -> sparse.csr_matrix:
    """The ``most`` largest entries of each row that are above zero, columns in order."""
    matrix.sort_indices()
    length = np.diff(matrix.indptr)
    row = np.repeat(np.arange(matrix.shape[0]), length)
    order = np.lexsort((-matrix.data, row))  # stable, so that of equal ones the first columns stay
    place = np.arange(len(order)) - np.repeat(matrix.indptr[:-1], length)
    kept = np.sort(order[(place < most) & (matrix.data[order] > 0)])
    start = np.concatenate([[0], np.cumsum(np.bincount(row[kept], minlength=matrix.shape[0]))])
    return sparse.csr_matrix((matrix.data[kept], matrix.indices[kept], start), shape=matrix.shape)


def scores(table: Table, likes: sparse.csr_matrix) -> np.ndarray:
    """[b, n_videos] float32 of histories ``likes`` [b, n_videos]."""
    found = likes @ table
    return np.asarray(found if isinstance(found, np.ndarray) else found.toarray(), dtype=np.float32)


def factors(table: Table, likes: sparse.csr_matrix, rank: int, *, seed: int = 0) -> Factors:
    """The best ``rank`` dimensions of the scores of the users, weighted and cut as in :class:`.linear.HistoryModel`."""
    n_users, n_items = likes.shape
    rows = min(n_users, max(LEAST_ROWS, SCORES // n_items))
    chosen = np.sort(np.random.default_rng(seed).permutation(n_users)[:rows])
    users = np.maximum(np.asarray(likes[chosen].sum(axis=1)), 1) ** -0.3  # [rows, 1]
    popularity = column_sums(likes)
    items = torch.from_numpy(np.maximum(popularity / max(popularity.mean(), 1e-9), 0.01) ** -0.2).float()[:, None]
    shown = torch.from_numpy(scores(table, likes[chosen]))
    shown.clamp_(min=0).mul_(torch.from_numpy(users).float()).mul_(items.T)
    axes = low_rank_svd(
        lambda q: shown @ q, lambda q: shown.T @ q, n_items, min(rank, rows, n_items), iterations=2, seed=seed
    )[2]
    like = torch.from_numpy(np.asarray(table @ (items * axes).numpy(), dtype=np.float32))
    return Factors(like, torch.zeros_like(like), axes / items)


def spectral(
    likes: sparse.csr_matrix, rank: int, *, ridge: float, user_power: float, item_power: float, seed: int = 0
) -> Factors:
    """``rank`` dimensions of the table of these arguments, but for its diagonal, from the spectrum of the histories.

    They cost a factorisation of the histories, where :func:`factors` takes one of scores of as many users as fit.
    """
    weighted, items = _weighted(likes, user_power, item_power)
    if not ridge:  # the same products, both sides divided by the same power
        likes_of = column_sums(likes)
        items = _power(likes_of, -(1 - COLUMNS) / 2 * item_power)
        weighted = (weighted @ sparse.diags(1 / items)).tocsr().astype(np.float32)
    forward, backward = to_torch(weighted), to_torch(weighted.T)
    _, s, axes = low_rank_svd(
        lambda q: forward @ q,
        lambda q: backward @ q,
        likes.shape[1],
        min(rank, *likes.shape),
        iterations=3,
        seed=seed,
    )
    response = s**2 / (s**2 + ridge) if ridge else s**2
    side = torch.from_numpy(items)[:, None]
    return Factors(side * axes * response, torch.zeros_like(axes), axes / side)


def residual(
    table: Table, factors: Factors, likes: sparse.csr_matrix, most: int, *, seed: int = 0, block: int = 1_000
) -> sparse.csr_matrix:
    """The ``most`` largest entries per row of what ``factors`` leave of the table, on the scale of the factors."""
    n_users, n_items = likes.shape
    some = likes[np.sort(np.random.default_rng(seed).permutation(n_users)[: max(1, min(500, SCORES // n_items))])]
    whole = torch.from_numpy(scores(table, some))
    held = torch.from_numpy(some @ factors.like.numpy()) @ factors.item.T
    # A projection of scores has with them the product that it has with itself.
    scale = float(held.square().sum()) / max(float((held * whole).sum()), 1e-12)
    if not 0 < scale < 1e6:
        return sparse.csr_matrix((n_items, n_items), dtype=np.float32)
    parts = []
    for start in range(0, n_items, block):
        if not isinstance(table, np.ndarray):  # what it has no entry for is unknown, and stays without
            part = scale * table[start : start + block]
            row = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
            coarse = (factors.like[start + row] * factors.item[part.indices]).sum(dim=1)
            part.data -= coarse.numpy()
            parts.append(_largest(part, most))
            continue
        left = scale * torch.from_numpy(table[start : start + block])
        left -= factors.like[start : start + block] @ factors.item.T
        left[torch.arange(len(left)), torch.arange(start, start + len(left))] = 0
        best = torch.topk(left, min(most, n_items), dim=1)
        row = np.repeat(np.arange(len(left)), best.values.shape[1])
        part = sparse.csr_matrix((best.values.numpy().ravel(), (row, best.indices.numpy().ravel())), left.shape)
        parts.append(_largest(part, most))
    return sparse.vstack(parts, format="csr", dtype=np.float32)


def strongest(neighbours: sparse.csr_matrix, most: int) -> sparse.csr_matrix:
    """The ``most`` largest neighbours per row."""
    return _largest(neighbours.copy(), most)
