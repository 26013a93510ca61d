"""How a like of one video predicts likes of others: a regression between videos, split into factors and neighbours.

The regression is EASE^R (Steck 2019, "Embarrassingly shallow autoencoders for sparse data", WWW), in which longer rows
of users weigh less, and the ridge of a video grows with its likes. Up to :data:`EXACT` videos it is solved exactly.
Above, every video has a regression of its own, on the videos most often liked together with it (Ning, Karypis 2011,
"SLIM: sparse linear methods for top-n recommender systems", ICDM, there with feature selection). In the limit of a
large ridge, the result is how often two videos are liked together, scaled by powers of their likes (Fu et al. 2022,
"Revisiting neighborhood-based link prediction for collaborative filtering", WWW): a table of :data:`CANDIDATES` numbers
per video. It may be mixed with the regressions, and replaces them if they do not fit (:func:`regressable`).

127 dimensions hold the coarse part of such a table. The largest entries of the rest, a few per video, are stored
besides them as neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch
from scipy import sparse

from two_tower.trainer.linear import Factors, column_sums, low_rank_svd, to_torch

EXACT = 8_000
"""Most videos for which the regression is solved exactly: this needs three matrices of videos x videos."""

LOCAL = 20_000
"""Most videos for which a search tries a regression per video; each takes half a millisecond."""

REGRESSED = 100_000
"""Most videos for which there are regressions at all."""

PAIRS = 400_000_000
"""Most pairs of videos liked together for which there are regressions: each pair takes one number, briefly two."""

CANDIDATES = 1_000
"""Most entries in a row of a larger table."""

ENTRIES = 60_000_000
"""Most entries in all rows, unless that would be fewer than :data:`REGRESSORS` per row."""

TOGETHER = {"user_power": 0.75, "item_power": 0.5}
"""Exponents of :func:`together`, and of the spectrum of a large catalogue."""

COLUMNS = 0.7
"""Exponent for columns in :func:`together`, relative to that for rows."""

WINDOW = 50
"""Most positions between two likes of a user whose order counts."""

REGRESSORS = 100
"""Videos on which each video of a larger table is regressed."""

SCORES = 60_000_000
"""Scores that are factorised at once, unless :data:`LEAST_ROWS` users have more."""

LEAST_ROWS = 2_000

SPARSE = 200
"""If less than one in so many entries of a table is stored, products of factors are computed for these alone."""

PRODUCTS = 30_000_000
"""Entries of a product of histories that are in memory at once, unless one row has more."""

Table: TypeAlias = np.ndarray | sparse.csr_matrix
"""[n_videos, n_videos]: row = the liked video, column = the one whose score it adds to; the diagonal is zero."""


def tables(
    likes: sparse.csr_matrix,
    ridges: Sequence[float],
    *,
    user_power: float,
    item_power: float,
    order: sparse.csr_matrix | None = None,
    direction: float = 0.0,
) -> Iterator[Table]:
    """The regressions of the histories ``likes`` [n_users, n_videos] of weights, for each ridge in turn.

    A user's row weighs ``like_count ** -user_power``; the ridge of a video is ``ridge * like_count ** (2 item_power)``,
    counts in multiples of their mean.

    With a ``direction`` from 0 to 1, the target counts a later like ``1 + direction`` times, and an earlier one
    ``1 - direction`` times. ``order`` [n_users, n_videos] is larger for newer likes.
    """
    weighted, items = _weighted(likes, user_power, item_power)
    ahead = direction * _ahead(weighted, order) if direction and order is not None else None
    if len(items) > EXACT:
        yield from (_rescaled(found, items) for found in _local(weighted, ridges, ahead))
    else:
        yield from (_rescaled(_exact(weighted, ridge, ahead), items) for ridge in ridges)


def regressable(likes: sparse.csr_matrix, *, seed: int = 0) -> bool:
    """Whether :func:`tables` of ``likes`` [n_users, n_videos] fit, estimated from a sample if there are many videos."""
    n_items = likes.shape[1]
    if n_items <= EXACT:
        return True
    if n_items > REGRESSED:
        return False
    some = np.sort(np.random.default_rng(seed).permutation(n_items)[:500])
    likes = likes.tocsr()
    return (likes.T.tocsr()[some] @ likes).nnz / len(some) * n_items / 2 <= PAIRS


def _ahead(weighted: sparse.csr_matrix, order: sparse.csr_matrix) -> sparse.csr_matrix:
    """[n_videos, n_videos]: products of a user's likes, positive if the column's is newer than the row's.

    Only pairs at most :data:`WINDOW` apart in a user's likes count.
    """
    weighted, order = weighted.sorted_indices(), order.sorted_indices()
    user = np.repeat(np.arange(weighted.shape[0]), np.diff(weighted.indptr))
    at = np.lexsort((order.data, user))
    user, time, video, weight = user[at], order.data[at], weighted.indices[at], weighted.data[at]
    total = sparse.csr_matrix((weighted.shape[1],) * 2, dtype=np.float32)
    for gap in range(1, WINDOW + 1):
        pair = np.flatnonzero((user[gap:] == user[:-gap]) & (time[gap:] > time[:-gap]))
        if len(pair) == 0 and not (user[gap:] == user[:-gap]).any():
            break
        products = weight[pair] * weight[pair + gap]
        total = total + sparse.csr_matrix((products, (video[pair], video[pair + gap])), shape=total.shape)
    return (total - total.T).tocsr()


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


def _exact(weighted: sparse.csr_matrix, ridge: float, ahead: sparse.csr_matrix | None) -> np.ndarray:
    gram = torch.from_numpy((weighted.T @ weighted).toarray())
    gram.diagonal().add_(ridge)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    if ahead is None:
        return (-inverse / inverse.diagonal()).fill_diagonal_(0).numpy()
    # The target is gram + ahead, so the result is inverse (gram + ahead), less what keeps the diagonal zero.
    more = inverse @ torch.from_numpy(ahead.toarray())
    return (more - inverse * ((1 + more.diagonal()) / inverse.diagonal())).fill_diagonal_(0).numpy()


def _local(
    weighted: sparse.csr_matrix, ridges: Sequence[float], ahead: sparse.csr_matrix | None
) -> list[sparse.csr_matrix]:
    """Every column by ridge regression on the :data:`REGRESSORS` columns with the largest products with it."""
    n_items = weighted.shape[1]
    # The most liked first: then each row has few entries up to the diagonal, and these contain every pair once.
    order = np.argsort(-np.diff(weighted.tocsc().indptr), kind="stable")
    weighted = weighted[:, order].tocsr()
    transposed, before = weighted.T.tocsr(), None if ahead is None else ahead.T.tocsr()[order][:, order]
    halves, chosen = [], []
    for rows in blocks(weighted):
        gram = (transposed[rows] @ weighted).tocsr()
        halves.append(sparse.tril(gram, rows.start, format="csr"))
        target = gram if before is None else (gram + before[rows]).tocsr()
        chosen.append(largest(without_diagonal(target, rows.start), REGRESSORS))
    half, targets = sparse.vstack(halves, format="csr"), sparse.vstack(chosen, format="csr")
    found = [np.zeros(targets.nnz, dtype=np.float32) for _ in ridges]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # calling a second one takes longer than a matrix of a hundred rows
    try:
        for item in range(n_items):
            within = slice(targets.indptr[item], targets.indptr[item + 1])
            others, target = targets.indices[within], torch.from_numpy(targets.data[within])[:, None]
            if len(others) == 0:
                continue
            lower = torch.from_numpy(half[others][:, others].toarray())
            between, diagonal = lower + lower.T, lower.diagonal()
            for weights, ridge in zip(found, ridges, strict=True):
                between.diagonal().copy_(diagonal + ridge)
                weights[within] = torch.cholesky_solve(target, torch.linalg.cholesky(between)).numpy().ravel()
    finally:
        torch.set_num_threads(threads)
    back = np.argsort(order)
    return [
        sparse.csr_matrix((weights, targets.indices, targets.indptr), targets.shape).T.tocsr()[back][:, back]
        for weights in found
    ]


def together(likes: sparse.csr_matrix) -> sparse.csr_matrix:
    """Weighted counts of the users who like both videos, from the histories ``likes`` [n_users, n_videos] of weights.

    A user weighs ``like_count ** -user_power`` of :data:`TOGETHER`; a row is divided by ``like_count ** item_power``, a
    column by that to the power :data:`COLUMNS`. Each row keeps its :data:`CANDIDATES` largest entries.
    """
    weighted, items = _weighted(likes, **TOGETHER)
    transposed, parts = weighted.T.tocsr(), []
    weighted = (weighted @ sparse.diags(items ** (COLUMNS - 1))).tocsr()
    most = min(CANDIDATES, max(REGRESSORS, ENTRIES // max(len(items), 1)))
    for rows in blocks(weighted):
        part = (transposed[rows] @ weighted).tocsr()
        parts.append(largest(without_diagonal(part, rows.start), most))
    return sparse.vstack(parts, format="csr", dtype=np.float32)


def blocks(histories: sparse.csr_matrix) -> Iterator[slice]:
    """Rows of ``histories.T @ histories`` [n_videos, n_videos] to compute at once: at most :data:`PRODUCTS` entries.

    Their number varies, since very popular videos are liked together with almost all others: a thousand such rows are
    as large as a hundred thousand others.
    """
    length = np.diff(histories.indptr)
    reach = np.repeat(length, length).astype(np.float32)
    along = column_sums(sparse.csr_matrix((reach, histories.indices, histories.indptr), histories.shape))
    until = np.cumsum(np.minimum(along, histories.shape[1]))
    start = 0
    while start < len(until):
        before = until[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(until, before + PRODUCTS, side="right")))
        yield slice(start, stop)
        start = stop


def without_diagonal(part: sparse.csr_matrix, start: int) -> sparse.csr_matrix:
    """Rows of a square matrix, from ``start`` on, with a zero diagonal."""
    row = np.repeat(np.arange(start, start + part.shape[0]), np.diff(part.indptr))
    part.data[part.indices == row] = 0
    return part


def largest(matrix: sparse.csr_matrix, most: int) -> sparse.csr_matrix:
    """The ``most`` largest positive entries of each row, columns in order; of equal ones the first."""
    matrix.sort_indices()
    length = np.diff(matrix.indptr)
    least = np.zeros(matrix.shape[0], dtype=matrix.dtype)  # larger entries are kept
    for long in np.flatnonzero(length > most):
        values = matrix.data[matrix.indptr[long] : matrix.indptr[long + 1]]
        least[long] = max(np.partition(values, len(values) - most)[len(values) - most], 0)
    row = np.repeat(np.arange(matrix.shape[0]), length)
    bound = least[row]
    kept = matrix.data > bound
    # Entries equal to the smallest one kept, as long as there is room.
    room = most - np.bincount(row[kept], minlength=matrix.shape[0])
    equal = np.flatnonzero((matrix.data == bound) & (bound > 0))
    place = np.arange(len(equal)) - np.searchsorted(row[equal], row[equal])
    kept[equal[place < room[row[equal]]]] = True
    start = np.concatenate([[0], np.cumsum(np.bincount(row[kept], minlength=matrix.shape[0]))])
    return sparse.csr_matrix((matrix.data[kept], matrix.indices[kept], start), shape=matrix.shape)


def mixed(regressed: Table, together: Table, share: float, likes: sparse.csr_matrix, *, seed: int = 0) -> Table:
    """A mixture of both tables, with weight ``share`` for the second, scaled so that users' best scores are similar."""
    n_users, n_items = likes.shape
    some = likes[np.sort(np.random.default_rng(seed).permutation(n_users)[: max(1, min(500, SCORES // n_items))])]

    def best(table: Table) -> float:
        return float(torch.topk(torch.from_numpy(scores(table, some)), min(20, n_items), dim=1).values.mean())

    levels = best(regressed), best(together)
    if min(levels) <= 0:  # one of them has no information
        return regressed if levels[0] > 0 else together
    return (1 - share) / levels[0] * regressed + share / levels[1] * together


def scores(table: Table, likes: sparse.csr_matrix) -> np.ndarray:
    """[b, n_videos] float32 of histories ``likes`` [b, n_videos]."""
    found = likes @ table
    return np.asarray(found if isinstance(found, np.ndarray) else found.toarray(), dtype=np.float32)


def factors(table: Table, likes: sparse.csr_matrix, rank: int, *, seed: int = 0) -> Factors:
    """The best ``rank`` dimensions of the users' scores, weighted and clipped as in :class:`.linear.HistoryModel`."""
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


def spectral(likes: sparse.csr_matrix, rank: int, *, seed: int = 0) -> Factors:
    """``rank`` dimensions of :func:`together`, except for its diagonal, from the spectrum of the histories.

    This factorises the histories, while :func:`factors` factorises the scores of as many users as fit.
    """
    weighted, _ = _weighted(likes, **TOGETHER)
    # The same products, with both sides divided by the same power.
    items = _power(column_sums(likes), -(1 - COLUMNS) / 2 * TOGETHER["item_power"])
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
    side = torch.from_numpy(items)[:, None]
    return Factors(side * axes * s**2, torch.zeros_like(axes), axes / side)


def residual(
    table: Table, factors: Factors, likes: sparse.csr_matrix, most: int, *, seed: int = 0, block: int = 1_000
) -> sparse.csr_matrix:
    """The ``most`` largest entries per row of the table minus the scores of ``factors``, on the scale of the factors.

    Entries that are missing in the table are unknown, and have no residual.
    """
    n_users, n_items = likes.shape
    some = likes[np.sort(np.random.default_rng(seed).permutation(n_users)[: max(1, min(500, SCORES // n_items))])]
    whole = torch.from_numpy(scores(table, some))
    held = torch.from_numpy(some @ factors.like.numpy()) @ factors.item.T
    # The product of scores with their projection equals that of the projection with itself.
    scale = float(held.square().sum()) / max(float((held * whole).sum()), 1e-12)
    if not 0 < scale < 1e6:
        return sparse.csr_matrix((n_items, n_items), dtype=np.float32)
    parts, block = [], max(1, min(block, SCORES // n_items))
    for start in range(0, n_items, block):
        rows = table[start : start + block]
        if not isinstance(rows, np.ndarray) and rows.nnz * SPARSE < rows.shape[0] * n_items:
            row = np.repeat(np.arange(start, start + rows.shape[0]), np.diff(rows.indptr))
            products = (factors.like[row] * factors.item[rows.indices]).sum(dim=1).numpy()
            rest = np.where(rows.data == 0, 0, scale * rows.data - products).astype(np.float32)
            parts.append(largest(sparse.csr_matrix((rest, rows.indices, rows.indptr), rows.shape), most))
            continue
        part = torch.from_numpy(rows if isinstance(rows, np.ndarray) else rows.toarray())
        # Computing all products of a block is faster than those of single entries, unless these are very few.
        left = torch.where(part == 0, 0, scale * part - factors.like[start : start + block] @ factors.item.T)
        best = torch.topk(left, min(most, n_items), dim=1)
        row = np.repeat(np.arange(len(left)), best.values.shape[1])
        kept = sparse.csr_matrix((best.values.numpy().ravel(), (row, best.indices.numpy().ravel())), left.shape)
        parts.append(largest(kept, most))
    return sparse.vstack(parts, format="csr", dtype=np.float32)


def strongest(neighbours: sparse.csr_matrix, most: int) -> sparse.csr_matrix:
    """The ``most`` largest neighbours per row."""
    return largest(neighbours.copy(), most)
