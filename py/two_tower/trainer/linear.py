"""The closed forms behind both towers: tastes from histories, places from content. They need no gradients.

Histories. EASE^R (Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW) regresses every item on all
others; no item may predict itself. :class:`HistoryModel` solves it at low rank, without an item x item matrix:

- the inputs are likes and nopes; the target is likes plus a small part of the skips and nopes (all that was watched);
- a user's row is weighted by ``like_count ** -user_power``;
- the user side of the Gram matrix is diagonalised once (exactly if it is small, otherwise by a randomised SVD), after
  which every ridge strength costs a few products with sparse matrices;
- the positive *scores* of the training users are factorised, not the item x item weights: so the few dimensions are
  spent on actual users, and on items that they may be shown.

With B = [likes, nopes] scaled by row weights, Y the weighted target, M = (B B' + I)^-1 and c the
multipliers of the constraint, the scores are Y - M (Y + B c) and the weights on the inputs are B' M (Y + B c) - c.

Content. :class:`ContentModel` is a kernel ridge regression from the content of an item to its place, with exact
leave-one-out predictions, which show how well an item would be placed if it were new.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse

warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
warnings.filterwarnings("ignore", message="Sparse invariant checks")

DENSE = 60_000_000
"""Scores that are in memory at once."""

LEAST_ROWS = 4_000
"""Users that it takes to see where scores vary, if there are as many."""

Product = Callable[[torch.Tensor], torch.Tensor]


def to_torch(matrix: sparse.spmatrix) -> torch.Tensor:
    """SciPy sparse -> torch CSR, float32, same shape."""
    csr = matrix.tocsr()
    start, column = torch.from_numpy(csr.indptr.astype(np.int64)), torch.from_numpy(csr.indices.astype(np.int64))
    return torch.sparse_csr_tensor(start, column, torch.from_numpy(csr.data.astype(np.float32)), csr.shape)


def column_sums(matrix: sparse.spmatrix) -> np.ndarray:
    """[n] float64"""
    return np.asarray(matrix.sum(axis=0), dtype=np.float64).ravel()


def orthonormal(tall: torch.Tensor) -> torch.Tensor:
    """An orthonormal basis of the columns of [m, r], by Cholesky: several times as fast as Householder's QR.

    Its error grows with the square of the condition number; if that is too much for float32, QR is used.
    """
    factor, failed = torch.linalg.cholesky_ex(tall.T @ tall)
    pivots = factor.diagonal()
    if int(failed) or float(pivots.min()) < 2e-3 * float(pivots.max()):
        return torch.linalg.qr(tall)[0]
    return torch.linalg.solve_triangular(factor, tall.T, upper=False).T.contiguous()


def low_rank_svd(
    multiply: Product,
    transposed: Product,
    columns: int,
    rank: int,
    *,
    iterations: int,
    seed: int,
    oversample: int = 32,
    start: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Leading singular triplets U [m, rank], s [rank], V [columns, rank] of an operator given by its products.

    Randomised subspace iteration (Halko, Martinsson, Tropp 2011, algorithm 4.4), from ``start`` [columns, any], a guess
    of V, if given.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(columns, rank + oversample, generator=generator) / columns**0.5
    if start is not None:
        drawn[:, : start.shape[1]] = start
    basis = orthonormal(multiply(drawn))
    for _ in range(iterations):
        basis = orthonormal(multiply(orthonormal(transposed(basis))))  # [m, rank + oversample]
    basis = orthonormal(basis)
    projected = transposed(basis)  # [columns, rank + oversample]
    values, vectors = torch.linalg.eigh(projected.T @ projected)
    values, vectors = values.flip(0)[:rank].clamp(min=0), vectors.flip(1)[:, :rank]
    s = values.sqrt()
    return basis @ vectors, s, projected @ vectors / s.clamp(min=1e-12)


@dataclass(frozen=True)
class Factors:
    """Scores of a history: ``(likes @ like + nopes @ nope) @ item.T``."""

    like: torch.Tensor
    """[n_items, rank]"""
    nope: torch.Tensor
    """[n_items, rank]"""
    item: torch.Tensor
    """[n_items, rank]"""


def balance(factors: Factors, tastes: torch.Tensor, *, share: float = 0.3, length: float = 0.8) -> Factors:
    """The same factors on axes that suit an approximate index, given the tastes [n_users, rank] of the users.

    A ``share`` of the tastes' spread (1/2: all of it) moves from tastes to places, which does not change scores.
    Then the length of a place is raised to the power ``length``, so that the few very popular items stand out less.
    """
    spread, axes = torch.linalg.eigh(tastes.T @ tastes / max(len(tastes), 1))
    spread = spread.clamp(min=max(1e-6 * float(spread.max()), 1e-20))
    item = factors.item @ (axes * spread**share)
    item = item * item.norm(dim=1, keepdim=True).clamp(min=1e-12) ** (length - 1)
    inverse = axes * spread**-share
    return Factors(factors.like @ inverse, factors.nope @ inverse, item)


class HistoryModel:
    """The spectrum of the training histories; :meth:`solve` derives factors from it for any ridge and target."""

    def __init__(
        self,
        likes: sparse.csr_matrix,
        nopes: sparse.csr_matrix,
        skips: sparse.csr_matrix,
        *,
        user_power: float = 0.4,
        nope_input: float = 0.5,
        exact: int = 2048,
        rank: int = 1024,
        seed: int = 0,
        start: torch.Tensor | None = None,
    ) -> None:
        """``likes``, ``nopes``, ``skips``: [n_users, n_items] of weights, disjoint; at least one user and one item.

        Up to ``exact`` users the spectrum is complete; above, only its ``rank`` largest values are kept. ``start``, the
        :attr:`inputs` of a model of similar histories, speeds up finding them.
        """
        self.seed = seed
        self.label = (likes, nopes, skips)
        self.inputs: torch.Tensor | None  # [2 n_items, rank], axes of likes and nopes; None if the spectrum is exact
        self.last: torch.Tensor | None = None  # the latest axes: a start for those of a similar ridge
        like_count = np.maximum(np.asarray(likes.sum(axis=1)).ravel(), 1)  # [n_users]
        self.row = ((like_count / like_count.mean()) ** -user_power).astype(np.float32)
        self.weight = (1.0, nope_input)
        popularity = np.maximum(column_sums(likes) / max(column_sums(likes).mean(), 1e-9), 0.01)
        self.user_weight = torch.from_numpy(like_count**-0.3).float()[
            :, None
        ]  # [n_users, 1], of scores when factorised
        self.item_weight = torch.from_numpy(popularity**-0.2).float()[:, None]  # [n_items, 1], likewise
        rows = sparse.diags(self.row)
        self.block = [(weight * rows @ m).tocsr() for m, weight in zip((likes, nopes), self.weight, strict=True)]
        both = sparse.hstack(self.block, format="csr")  # [n_users, 2 n_items]
        n_users = both.shape[0]
        forward, backward = to_torch(both), to_torch(both.T)
        if n_users <= exact:
            values, self.basis = torch.linalg.eigh(forward @ torch.from_numpy(both.T.toarray()))  # [n], [n, n]
            self.values, self.tail, self.inputs = values.clamp(min=0), 0.0, None
        else:
            kept = min(rank, min(both.shape))
            self.basis, s, self.inputs = low_rank_svd(
                lambda q: forward @ q,
                lambda q: backward @ q,
                both.shape[1],
                kept,
                iterations=3 if start is None else 1,
                seed=seed,
                start=start,
            )
            self.values = s**2
            self.tail = max(float((both.data**2).sum() - self.values.sum()), 0.0) / max(n_users - kept, 1)
        self.projected = [self._project(b) for b in self.block]

    def _project(self, matrix: sparse.csr_matrix) -> torch.Tensor:
        """basis' matrix [r, n_items]"""
        return (to_torch(matrix.T) @ self.basis).T

    def solve(self, ridge: float, rank: int, *, skip_target: float = 0.4, nope_target: float = 0.2) -> Factors:
        """Factors at ridge strength ``ridge``, in likes, or the smallest that a truncated spectrum allows.

        ``rank`` is limited to that of the data.
        """
        likes, nopes, skips = self.label
        if self.tail:
            # The constraint treats the values that are not kept as constant. If they outweigh the ridge, scores are
            # useless.
            ridge = max(ridge, 1.5 * float(self.values[-1]))
        target = (sparse.diags(self.row) @ (likes + skip_target * skips + nope_target * nopes)).tocsr()
        n_items = target.shape[1]
        scale = ridge**-0.5
        block, projected = [scale * b for b in self.block], [scale * p for p in self.projected]
        target_projected = self._project(target)
        # M = rest I - basis diag(shrink) basis'; outside the kept spectrum it is treated as constant.
        rest = ridge / (self.tail + ridge)
        shrink = rest - ridge / (self.values + ridge)  # [r]

        def inner(a: int, other: sparse.csr_matrix, other_projected: torch.Tensor) -> np.ndarray:
            """diag(block[a]' M other) [n_items]"""
            direct = rest * column_sums(block[a].multiply(other))
            return direct - (projected[a] * shrink[:, None] * other_projected).sum(dim=0).double().numpy()

        free = np.stack([inner(i, target, target_projected) for i in (0, 1)], axis=1)  # [n_items, 2]
        bound = np.zeros((n_items, 2, 2))
        for i in (0, 1):
            for j in (0, 1):
                bound[:, i, j] = (i == j) * (1 + 1e-6) - inner(i, block[j], projected[j])
        multiplier = np.linalg.solve(bound, free[:, :, None])[:, :, 0].astype(np.float32)  # c [n_items, 2]

        corrected = (target + sum(block[i] @ sparse.diags(multiplier[:, i]) for i in (0, 1))).tocsr()  # Y + B c
        corrected_projected = target_projected + sum(
            projected[i] * torch.from_numpy(multiplier[:, i]) for i in (0, 1)
        )  # [r, n_items]
        # Scores without the weights of rows, as low rank + sparse.
        left = torch.from_numpy(1 / self.row)[:, None] * self.basis  # [n_users, r]
        right = shrink[:, None] * corrected_projected  # [r, n_items]
        direct = (sparse.diags(1 / self.row) @ (target - rest * corrected)).tocsr()
        axes = self._axes(left, right, direct, rank)  # [n_items, rank]
        self.last = axes
        weighted = to_torch(corrected) @ (self.item_weight * axes)  # [n_users, rank]
        weighted = rest * weighted - self.basis @ (shrink[:, None] * (self.basis.T @ weighted))
        like, nope = (
            (scale * self.weight[i])
            * (to_torch(block[i].T) @ weighted - torch.from_numpy(multiplier[:, i : i + 1]) * (self.item_weight * axes))
            for i in (0, 1)
        )
        return Factors(like, nope, axes / self.item_weight)

    def _axes(self, left: torch.Tensor, right: torch.Tensor, direct: sparse.csr_matrix, rank: int) -> torch.Tensor:
        """Axes [n_items, rank] on which the weighted scores ``left @ right + direct`` [n_users, n_items] vary most.

        If a block of scores fits into memory, negative scores count as zero: such items are not shown.
        """
        n_users, n_items = direct.shape
        rank = min(rank, n_users, n_items)
        rows = min(n_users, DENSE // n_items)
        # The first time, start from where the corrected target varies most.
        start = right[:rank].T if self.last is None else self.last
        guess: dict[str, Any] = {"iterations": 2 if self.last is None else 1, "seed": self.seed, "start": start}
        if rows < min(n_users, LEAST_ROWS):
            left = self.user_weight * left
            weighted = (
                sparse.diags(self.user_weight.ravel().numpy()) @ direct @ sparse.diags(self.item_weight.ravel().numpy())
            )
            right = right * self.item_weight.T
            forward, backward = to_torch(weighted), to_torch(weighted.T)
            return low_rank_svd(
                lambda q: left @ (right @ q) + forward @ q,
                lambda q: right.T @ (left.T @ q) + backward @ q,
                n_items,
                rank,
                **guess,
            )[2]
        chosen = np.sort(np.random.default_rng(self.seed).permutation(n_users)[:rows])
        scores = left[chosen] @ right
        some = direct[chosen].tocoo()  # a hundredth of the scores, each once
        scores.numpy()[some.row, some.col] += some.data
        scores = scores.clamp_(min=0).mul_(self.user_weight[chosen]).mul_(self.item_weight.T)
        return low_rank_svd(lambda q: scores @ q, lambda q: scores.T @ q, n_items, min(rank, rows), **guess)[2]


class ContentModel:
    """Weighted kernel ridge regression, Gaussian kernel, on the span of ``centres`` (Nystroem)."""

    def __init__(
        self,
        features: torch.Tensor,
        centres: torch.Tensor,
        likes: torch.Tensor,
        *,
        square_width: float,
        doubt: float = 30.0,
    ) -> None:
        """``features`` [n, width]; ``centres`` [h, width], rows of it; ``likes`` [n]: an item with few weighs less."""
        self.square_width = square_width
        self.weight = (likes / (likes + doubt))[:, None]  # [n, 1]
        between = gaussian(centres, centres, self.square_width)
        # More if centres are so many, and so close to each other, that rounding outweighs the smallest jitter.
        for jitter in (1e-3, 1e-2, 0.1, 1.0):
            self.factor, failed = torch.linalg.cholesky_ex(between + jitter * torch.eye(len(centres)))  # [h, h]
            if not failed:
                break
        else:
            raise ValueError("the content of videos is not finite")
        kernel = gaussian(features, centres, self.square_width)  # [n, h]
        self.basis = torch.linalg.solve_triangular(self.factor, kernel.T, upper=False).T  # [n, h]
        self.gram = self.basis.T @ (self.weight * self.basis)  # [h, h]

    def solve(self, target: torch.Tensor, ridge: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Coefficients on the centres [h, d], bias [d], leave-one-out predictions [n, d] of ``target`` [n, d]."""
        bias = (self.weight * target).sum(dim=0) / self.weight.sum().clamp(min=1e-6)
        factor = torch.linalg.cholesky(self.gram + ridge * torch.eye(len(self.gram)))
        solution = torch.cholesky_solve(self.basis.T @ (self.weight * (target - bias)), factor)  # [h, d]
        leverage = (
            torch.linalg.solve_triangular(factor, self.basis.T, upper=False).square().sum(dim=0)[:, None] * self.weight
        )
        fitted = self.basis @ solution  # [n, d]
        left_out = bias + (fitted - leverage * (target - bias)) / (1 - leverage).clamp(min=1e-3)
        return torch.linalg.solve_triangular(self.factor.T, solution, upper=True), bias, left_out


def gaussian(a: torch.Tensor, b: torch.Tensor, square_width: float) -> torch.Tensor:
    """[n, d], [m, d] -> exp(-|a - b|^2 / (2 square_width)) [n, m]; fast if most of ``a`` is zero, as in content"""
    products = torch.from_numpy(sparse.csr_matrix(a.numpy()) @ np.ascontiguousarray(b.numpy().T))
    square = a.square().sum(dim=1, keepdim=True) - 2 * products + b.square().sum(dim=1)
    return torch.exp(-square.clamp(min=0) / (2 * square_width))
