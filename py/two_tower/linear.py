"""Closed-form start of both towers: a low-rank, user-weighted EASE^R over likes and nopes, without a dense item x item matrix.

EASE^R (Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW) regresses every item on all others. Here

- the inputs are likes and nopes, the target is likes plus a little of the skips and nopes (what was watched at all);
- a user's row is weighted by ``like_count ** -user_power``, an input's ridge by its popularity;
- the user side of the Gram matrix is diagonalised once (exactly where it is small, by a randomised SVD where it isn't),
  after which every ridge strength costs a few products with sparse matrices and the constraint "no item predicts
  itself" is still met exactly in the kept part of the spectrum;
- the *scores* of the training users, not the item x item weights, are factorised, so that the 127 dimensions go where
  the users are.

With B = [likes, nopes] scaled by row and column weights, Y the weighted target, M = (B B' + I)^-1 and c the multipliers of
the constraint, the scores are Y - M Y - M (B c) and the weights on the inputs B' M (Y + B c) - c.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
warnings.filterwarnings("ignore", message="Sparse invariant checks")

Product = Callable[[torch.Tensor], torch.Tensor]


def to_torch(matrix: sparse.spmatrix) -> torch.Tensor:
    """SciPy sparse -> torch CSR, float32, same shape."""
    csr = matrix.tocsr()
    index, column = torch.from_numpy(csr.indptr.astype(np.int64)), torch.from_numpy(csr.indices.astype(np.int64))
    return torch.sparse_csr_tensor(index, column, torch.from_numpy(csr.data.astype(np.float32)), csr.shape)


def low_rank_svd(
    multiply: Product, transposed: Product, columns: int, rank: int, *, iterations: int, seed: int, oversample: int = 32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Leading singular triplets U [m, rank], s [rank], V [columns, rank] of an operator known by its products.

    Randomised subspace iteration (Halko, Martinsson, Tropp 2011, algorithm 4.4).
    """
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(multiply(torch.randn(columns, rank + oversample, generator=generator)))[0]
    for _ in range(iterations):
        basis = torch.linalg.qr(multiply(torch.linalg.qr(transposed(basis))[0]))[0]  # [m, rank + oversample]
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
    """[n_items, rank], orthonormal columns, so that no row is longer than 1"""


class HistoryModel:
    """The spectrum of the training histories, from which :meth:`solve` derives factors for any ridge strength."""

    def __init__(
        self,
        likes: sparse.csr_matrix,
        nopes: sparse.csr_matrix,
        skips: sparse.csr_matrix,
        *,
        user_power: float = 0.25,
        popularity_ridge: float = 0.001,
        nope_input: float = 0.7,
        skip_target: float = 0.4,
        nope_target: float = 0.1,
        exact: int = 5000,
        rank: int = 1024,
        seed: int = 0,
    ) -> None:
        """``likes``, ``nopes``, ``skips``: [n_users, n_items] of ones, disjoint.

        ``exact``: up to this many users the spectrum is complete; above, ``rank`` values of it are kept.
        """
        self.seed = seed
        like_count = np.maximum(np.asarray(likes.sum(axis=1)).ravel(), 1)  # [n_users]
        self.row = (like_count / like_count.mean()) ** -user_power
        rows = sparse.diags(self.row)
        self.column = [
            weight / np.sqrt(1 + popularity_ridge * np.asarray(m.sum(axis=0)).ravel())  # [n_items]
            for m, weight in ((likes, 1.0), (nopes, nope_input))
        ]
        self.block = [(rows @ m @ sparse.diags(c)).tocsr() for m, c in zip((likes, nopes), self.column, strict=True)]
        self.target = (rows @ (likes + skip_target * skips + nope_target * nopes)).tocsr()  # [n_users, n_items]
        both = sparse.hstack(self.block, format="csr")  # [n_users, 2 n_items]
        n_users = both.shape[0]
        forward, backward = to_torch(both), to_torch(both.T)
        if n_users <= exact:
            gram = torch.cat([forward @ torch.from_numpy(part.T.toarray()) for part in _row_blocks(both)], dim=1)
            self.eigen, self.basis = torch.linalg.eigh(gram)  # [n_users], [n_users, n_users]
            self.eigen, self.tail = self.eigen.clamp(min=0), 0.0
        else:
            kept = min(rank, min(both.shape) - 1)
            self.basis, s, _ = low_rank_svd(
                lambda q: forward @ q, lambda q: backward @ q, both.shape[1], kept, iterations=3, seed=seed
            )
            self.eigen = s**2
            self.tail = max(float((both.data**2).sum() - self.eigen.sum()), 0.0) / max(n_users - kept, 1)
        self.basis_target = self._project(self.target)  # [r, n_items]
        self.basis_block = [self._project(b) for b in self.block]

    def _project(self, matrix: sparse.csr_matrix) -> torch.Tensor:
        return (to_torch(matrix.T) @ self.basis).T

    def solve(self, ridge: float, rank: int) -> Factors:
        """Factors of the scores at ridge strength ``ridge`` (in likes); ``rank`` is cut to what the data have."""
        n_users, n_items = self.target.shape
        pairs = range(len(self.block))
        rest = ridge / (self.tail + ridge)  # M outside the kept spectrum
        shrink = rest - ridge / (self.eigen + ridge)  # [r]; M = rest I - basis diag(shrink) basis'
        scale = ridge**-0.5  # of the blocks

        def inner(
            a: sparse.csr_matrix, a_basis: torch.Tensor, b: sparse.csr_matrix, b_basis: torch.Tensor
        ) -> np.ndarray:
            """diag(a' M b) [n_items]"""
            own = np.asarray(a.multiply(b).sum(axis=0)).ravel()
            return rest * own - torch.einsum("rn,r,rn->n", a_basis, shrink, b_basis).numpy()

        bound = np.zeros((n_items, 2, 2))
        free = np.zeros((n_items, 2))
        for i in pairs:
            free[:, i] = scale * inner(self.block[i], self.basis_block[i], self.target, self.basis_target)
            for j in pairs:
                cross = inner(self.block[i], self.basis_block[i], self.block[j], self.basis_block[j])
                bound[:, i, j] = (i == j) * (1 + 1e-6) - cross / ridge
        multiplier = np.linalg.solve(bound, free[:, :, None])[:, :, 0].astype(np.float32)  # c [n_items, 2]
        own = scale * sum(self.block[i] @ sparse.diags(multiplier[:, i]) for i in pairs)  # B c [n_users, n_items]
        corrected = (self.target + own).tocsr()
        projected = self.basis_target + scale * sum(
            self.basis_block[i] * torch.from_numpy(multiplier[:, i]) for i in pairs
        )
        # Scores, rows unweighted: target - M (target + B c) = low rank + sparse.
        unweight = torch.from_numpy((1 / self.row).astype(np.float32))[:, None]
        left, right = unweight * self.basis, shrink[:, None] * projected  # [n_users, r], [r, n_items]
        direct = sparse.diags(1 / self.row) @ (self.target - rest * corrected)
        forward, backward = to_torch(direct), to_torch(direct.T)
        _, _, item = low_rank_svd(
            lambda q: left @ (right @ q) + forward @ q,
            lambda q: right.T @ (left.T @ q) + backward @ q,
            n_items,
            max(1, min(rank, n_users, n_items)),
            iterations=4,
            seed=self.seed,
        )
        weighted = to_torch(corrected) @ item  # [n_users, rank]
        weighted = rest * weighted - self.basis @ (shrink[:, None] * (self.basis.T @ weighted))
        like, nope = (
            torch.from_numpy((self.column[i] * scale).astype(np.float32))[:, None]
            * (scale * (to_torch(self.block[i].T) @ weighted) - torch.from_numpy(multiplier[:, i : i + 1]) * item)
            for i in pairs
        )
        return Factors(like, nope, item)


def _row_blocks(matrix: sparse.csr_matrix, rows: int = 1024) -> list[sparse.csr_matrix]:
    return [matrix[start : start + rows] for start in range(0, matrix.shape[0], rows)]
