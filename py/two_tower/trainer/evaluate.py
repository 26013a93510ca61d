"""Metrics of full rankings of the catalogue without seen items, and the references to compare with.

Everything works on blocks of scores ``scorer(rows) -> [len(rows), n_items]``, so the block bounds memory. Metrics are
per user, then averaged over users with a relevant item:

    Recall@K = hits / |relevant|        NDCG@K: binary gain, log2(rank + 1), ideal over min(|relevant|, K)
    Precision@K = hits / K
    MAP@K = sum of P@i at hits / min(|relevant|, K)        AUC = P(a relevant item scores above an irrelevant one)
    coverage@K = share of the candidates that appear in anyone's top K
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse

from two_tower.trainer.items import blocks, largest, without_diagonal
from two_tower.trainer.linear import to_torch
from two_tower.trainer.model import TINY
from two_tower.trainer.splits import sample

Scorer = Callable[[np.ndarray], np.ndarray]
"""Positions of users [b] -> scores [b, n_items], float32, higher is better."""

HISTORY_LENGTHS = (5, 20, 100, np.inf)
"""Upper ends of the ranges of known likes whose users are measured together."""

EASE_LIMIT = 12_000
"""Most items for which the dense EASE^R reference is computed; it needs three matrices of items x items."""

ALS_LIMIT = 400_000
"""Most likes to which the ALS reference is fitted, in a minute or less."""

BLOCK = 50_000
"""Pairs of a user and an item whose factors are in memory at once."""

SCORES = 30_000_000
"""Scores of users and items that are in memory at once."""

DRAWN = 1_000_000
"""Values per user that a bootstrap draws at once."""

MEASURED = 200_000_000
"""Scores of users and items that are ranked to measure a recommender, unless those of :data:`LEAST_USERS` are more."""

LEAST_USERS = 2_000

ENOUGH = 300
"""Fewest users in a range of known likes for which a difference is reported."""


@dataclass(frozen=True)
class Ranking:
    """Metrics per user, in the order of ``users`` (positions of users with a relevant item)."""

    users: np.ndarray
    """[u] int"""
    values: dict[str, np.ndarray]
    """metric name -> [u] float64"""
    coverage: float

    def mean(self, where: np.ndarray | None = None) -> dict[str, float]:
        """Averages over users, or over those with ``where`` [u] true; NaN if there are none."""
        kept = np.ones(len(self.users), dtype=bool) if where is None else where
        return {name: float(v[kept].mean()) if kept.any() else float("nan") for name, v in self.values.items()}

    def interval(self, name: str, *, draws: int = 500, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
        """Bootstrap confidence interval of the mean of ``name`` over users."""
        values, rng = self.values[name], np.random.default_rng(seed)
        if len(values) == 0:
            return float("nan"), float("nan")
        at_once = max(1, DRAWN // len(values))
        means = [
            values[rng.integers(0, len(values), (min(at_once, draws - first), len(values)))].mean(axis=1)
            for first in range(0, draws, at_once)
        ]
        low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


def rank(
    scorer: Scorer,
    relevant: sparse.csr_matrix,
    seen: sparse.csr_matrix | None = None,
    *,
    candidates: np.ndarray | None = None,
    k: int = 20,
    also: Sequence[int] = (),
    auc: bool = True,
    block: int = 512,
) -> Ranking:
    """Rank the ``candidates`` (item positions; default all), without ``seen`` ones, for users with a relevant one.

    ``relevant``, ``seen``: [n_users, n_items], non-zero where true. ``also``: lengths of lists to measure besides
    ``k``. ``block``: most users at once.
    """
    n_items = relevant.shape[1]
    block = max(1, min(block, SCORES // max(n_items, 1)))
    allowed = np.ones(n_items, dtype=bool)
    if candidates is not None:
        allowed[:] = False
        allowed[candidates] = True
    columns = np.flatnonzero(allowed)
    wanted_all = relevant.tocsr()[:, columns]
    users = np.flatnonzero(np.diff(wanted_all.indptr) > 0)
    lengths = [k, *sorted(set(also) - {k})]
    longest = max(lengths)
    top = min(longest, len(columns))
    discount = 1 / np.log2(np.arange(2, longest + 2))
    ideal = np.cumsum(discount)
    parts: dict[str, list[np.ndarray]] = {
        f"{name}@{length}": [] for length in lengths for name in ("recall", "ndcg", "map", "precision")
    }
    if auc:
        parts["auc"] = []
    shown = np.zeros(len(columns), dtype=bool)
    for start in range(0, len(users), block):
        rows = users[start : start + block]
        scores = np.take(scorer(rows), columns, axis=1).astype(np.float32, copy=False)  # [b, c], a copy
        hidden = np.zeros(scores.shape, dtype=bool)
        if seen is not None:
            hidden = seen[rows][:, columns].toarray() != 0
            scores[hidden] = -np.inf
        wanted = wanted_all[rows].toarray() != 0  # [b, c]
        best = top_k(scores, top)  # [b, top]
        valid = ~np.take_along_axis(hidden, best, axis=1)
        hits = np.take_along_axis(wanted, best, axis=1) & valid
        count = wanted.sum(axis=1)
        precision = np.cumsum(hits, axis=1) / np.arange(1, top + 1)
        for length in lengths:
            bound, first = np.minimum(count, length), slice(min(length, top))
            parts[f"recall@{length}"].append(hits[:, first].sum(axis=1) / count)
            parts[f"ndcg@{length}"].append((hits[:, first] * discount[: first.stop]).sum(axis=1) / ideal[bound - 1])
            parts[f"map@{length}"].append((precision[:, first] * hits[:, first]).sum(axis=1) / bound)
            parts[f"precision@{length}"].append(hits[:, first].sum(axis=1) / length)
        shown[best[:, :k][valid[:, :k]]] = True
        if auc:
            parts["auc"].append(_auc(scores, wanted, hidden))
    values = {name: np.concatenate(v) if v else np.zeros(0) for name, v in parts.items()}
    return Ranking(users, values, float(shown.mean()) if len(columns) else float("nan"))


def asked(relevant: sparse.csr_matrix, most: int, seed: int = 0) -> tuple[np.ndarray, sparse.csr_matrix]:
    """Positions of at most ``most`` users, fewer for many items, and ``relevant`` with only the entries of these users.

    ``relevant``: [n_users, n_items]; the result has the same shape.
    """
    n_users, n_items = relevant.shape
    users = np.flatnonzero(np.diff(relevant.indptr))
    users = users[sample(len(users), min(most, max(LEAST_USERS, MEASURED // max(n_items, 1))), seed)]
    chosen = sparse.diags(np.isin(np.arange(n_users), users).astype(np.float32))
    found = (chosen @ relevant).tocsr()
    found.eliminate_zeros()
    return users, found


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions [b, k] of the k best scores [b, n], best first; equal scores in the result are in order of position."""
    found = np.sort(torch.topk(torch.from_numpy(scores), k, dim=1, sorted=False).indices.numpy(), axis=1)
    order = np.argsort(-np.take_along_axis(scores, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)


def _auc(scores: np.ndarray, wanted: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """[b]: Mann-Whitney statistic of wanted items against the rest without hidden items (-inf); a tie is half."""
    wanted = wanted & ~hidden
    values = np.full(len(scores), 0.5)
    ordered = np.sort(scores, axis=1)
    for row in range(len(scores)):
        own = np.sort(scores[row, wanted[row]])
        rest = ordered[row, hidden[row].sum() :]
        negatives = len(rest) - len(own)
        if len(own) and negatives:
            below = np.searchsorted(rest, own) + np.searchsorted(rest, own, side="right")
            among = np.searchsorted(own, own) + np.searchsorted(own, own, side="right")
            values[row] = (below - among).sum() / 2 / (len(own) * negatives)
    return values


def by_vectors(users: np.ndarray, items: np.ndarray) -> Scorer:
    """Cosine of unit vectors ``users`` [n_users, d] and ``items`` [n_items, d]."""
    # By the same library as everything else in a training: threads of two libraries would compete for the processors.
    across = torch.from_numpy(items).T
    return lambda rows: (torch.from_numpy(users[rows]) @ across).numpy()


def with_neighbours(
    towers: Scorer, likes: sparse.csr_matrix, neighbours: sparse.csr_matrix, length: np.ndarray | None = None
) -> Scorer:
    """Scores of ``towers``, plus what each like [n_users, m] of a user adds to its neighbours [m, n_items].

    ``length`` [n_users]: of the users' sums, if ``towers`` scores unit vectors. With length 0, neighbours add nothing.
    """
    reach = np.ones(likes.shape[0]) if length is None else np.where(length > 0, 1 / np.maximum(length, TINY), 0)
    scaled = (sparse.diags(reach.astype(np.float32)) @ likes).tocsr()
    return lambda rows: towers(rows) + (scaled[rows] @ neighbours).toarray()


def by_popularity(likes: sparse.csr_matrix) -> Scorer:
    """The number of likes of each item, for everyone."""
    counts = np.asarray(likes.sum(axis=0), dtype=np.float32).ravel()
    return lambda rows: np.broadcast_to(counts, (len(rows), len(counts)))


def by_chance(n_items: int, seed: int = 0) -> Scorer:
    """Uniform random scores, the same for a user in every call."""
    return lambda rows: np.stack(
        [np.random.default_rng((seed, int(r))).random(n_items, dtype=np.float32) for r in rows]
    )


def by_item_knn(likes: sparse.csr_matrix, neighbours: int = 100) -> Scorer:
    """Cosine of columns of likes, to the ``neighbours`` nearest of each item, summed over the history."""
    norm = np.sqrt(np.asarray(likes.sum(axis=0)).ravel())
    unit = (likes @ sparse.diags(1 / np.maximum(norm, 1))).tocsr().astype(np.float32)
    across, nearest = unit.T.tocsr(), []
    for rows in blocks(unit):
        similar = (across[rows] @ unit).tocsr()  # [block, n_items]
        nearest.append(largest(without_diagonal(similar, rows.start), neighbours))
    weights = sparse.vstack(nearest).T.tocsr()  # [n_items, n_items]
    return lambda rows: (likes[rows] @ weights).toarray()


def by_ease(likes: sparse.csr_matrix, ridge: float = 150.0) -> Scorer:
    """EASE^R (Steck 2019), dense over the items: ``B = I - P diag(1 / diag P)``, ``P = (X'X + ridge I)^-1``."""
    gram = torch.from_numpy((likes.T @ likes).toarray().astype(np.float32))
    gram.diagonal().add_(ridge)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    weights = (-inverse / inverse.diagonal()).fill_diagonal_(0)
    return lambda rows: (to_torch(likes[rows]) @ weights).numpy()


def by_als(
    likes: sparse.csr_matrix,
    *,
    factors: int = 128,
    confidence: float = 20.0,
    ridge: float = 100.0,
    rounds: int = 12,
    steps: int = 3,
    seed: int = 0,
) -> Scorer:
    """Implicit alternating least squares (Hu, Koren, Volinsky 2008, ICDM), each side by ``steps`` of conjugate
    gradients (Takacs, Pilaszy, Tikk 2011, RecSys). A like weighs 1 + ``confidence``, any other pair 1."""
    rng = np.random.default_rng(seed)
    both = likes.tocsr().astype(np.float32), likes.T.tocsr().astype(np.float32)
    sides = [(rng.standard_normal((m.shape[0], factors)) / factors).astype(np.float32) for m in both]

    def weighted(pairs: sparse.csr_matrix, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Row r: the sum over its pairs (r, c) of ``left[r] . right[c]`` times ``right[c]``."""
        row = np.repeat(np.arange(pairs.shape[0]), np.diff(pairs.indptr))
        values = np.empty(pairs.nnz, dtype=np.float32)
        for at in range(0, pairs.nnz, BLOCK):
            some = slice(at, at + BLOCK)
            values[some] = np.einsum("ij,ij->i", left[row[some]], right[pairs.indices[some]])
        return sparse.csr_matrix((values, pairs.indices, pairs.indptr), shape=pairs.shape) @ right

    for turn in range(2 * rounds):
        pairs, mine, other = both[turn % 2], sides[turn % 2], sides[1 - turn % 2]
        gram = other.T @ other + ridge * np.eye(factors, dtype=np.float32)
        left = (1 + confidence) * (pairs @ other) - mine @ gram - confidence * weighted(pairs, mine, other)
        towards, length = left.copy(), np.square(left).sum(axis=1, keepdims=True)
        for _ in range(steps):
            moved = towards @ gram + confidence * weighted(pairs, towards, other)
            step = length / np.maximum((towards * moved).sum(axis=1, keepdims=True), 1e-12)
            mine += step * towards
            left -= step * moved
            shorter = np.square(left).sum(axis=1, keepdims=True)
            towards = left + shorter / np.maximum(length, 1e-12) * towards
            length = shorter
    return lambda rows: sides[0][rows] @ sides[1].T


def references(likes: sparse.csr_matrix, seed: int = 0) -> tuple[dict[str, Scorer], dict[str, str]]:
    """The reference scorers on known ``likes`` [n_users, n_items], and name -> reason for each that was left out."""
    found = {
        "random": by_chance(likes.shape[1], seed),
        "popularity": by_popularity(likes),
        "item-kNN": by_item_knn(likes),
    }
    left_out = {}
    if likes.nnz <= ALS_LIMIT:
        found["ALS"] = by_als(likes, seed=seed)
    else:
        left_out["ALS"] = f"{likes.nnz} likes; it is fitted to up to {ALS_LIMIT}"
    if likes.shape[1] <= EASE_LIMIT:
        found["EASE^R"] = by_ease(likes)
    else:
        left_out["EASE^R"] = f"{likes.shape[1]} items; its dense matrix is built up to {EASE_LIMIT}"
    return found, left_out


def report(
    scorers: dict[str, Scorer],
    likes: sparse.csr_matrix,
    seen: sparse.csr_matrix,
    relevant: sparse.csr_matrix,
    *,
    k: int = 20,
    also: Sequence[int] = (),
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """``metrics.json``: scorer name -> metrics overall with intervals, by the number of known likes, and for cold
    items; and the difference of each NDCG to that of the first scorer, with standard errors.

    ``likes``: those known in training; an item without any is cold.
    """
    cold = np.flatnonzero(np.asarray(likes.sum(axis=0)).ravel() == 0)
    count = np.asarray(likes.sum(axis=1)).ravel()
    result: dict[str, dict[str, Any]] = {}
    first: Ranking | None = None
    for name, scorer in scorers.items():
        ranking = rank(scorer, relevant, seen, k=k, also=also)
        first = first or ranking
        headings = (f"recall@{k}", f"ndcg@{k}")
        result[name] = {
            **ranking.mean(),
            f"coverage@{k}": ranking.coverage,
            "users": len(ranking.users),
            "interval": {heading: ranking.interval(heading, seed=seed) for heading in headings},
            "by_likes": _by_likes(ranking, count[ranking.users]),
        }
        if len(cold) > 0:
            chilly = rank(scorer, relevant, seen, candidates=cold, k=k)
            result[name]["cold_items"] = chilly.mean() | {"users": len(chilly.users), "items": len(cold)}
        if ranking is not first:
            gain = ranking.values[f"ndcg@{k}"] - first.values[f"ndcg@{k}"]
            for bucket, where in _buckets(count[ranking.users]):
                error = float(gain[where].std()) / int(where.sum()) ** 0.5
                ahead = {"ndcg": float(gain[where].mean()), "standard_error": error}
                result[name]["by_likes"][bucket]["ahead"] = ahead
    return result


def behind(metrics: dict[str, Any]) -> list[str]:
    """A sentence for each case in which a reference beats the towers by more than two standard errors."""
    return [
        f"users with {bucket} likes are better served by {name}: NDCG {found['ndcg']:.4f} higher, "
        f"standard error {found['standard_error']:.4f}"
        for name, reference in metrics.items()
        for bucket, each in (reference.get("by_likes", {}) if isinstance(reference, dict) else {}).items()
        for found in (each.get("ahead"),)
        if found and each["users"] >= ENOUGH and found["ndcg"] > 2 * found["standard_error"]
    ]


def _by_likes(ranking: Ranking, count: np.ndarray) -> dict[str, dict[str, Any]]:
    """Metrics of users by their number of known likes [u]."""
    return {name: ranking.mean(where) | {"users": int(where.sum())} for name, where in _buckets(count)}


def _buckets(count: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Names, such as ``6-20``, and masks [u] of the users with so many likes; users without likes are in the first.
    Empty ranges are left out."""
    least: float = 0
    for most in HISTORY_LENGTHS:
        where = (count >= least) & (count <= most)
        if where.any():
            yield f"{least} or more" if most == np.inf else f"{max(least, 1)}-{most}", where
        least = most + 1
