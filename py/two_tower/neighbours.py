"""The sparse part of a score: what a like of one video adds to others, beside what the towers say.

For a user, whose sum ``s`` of what the history adds has the length ``|s|`` before it is scaled to 1, the score of a
video is ``cos(s, place) + sum over the likes of weight * neighbours[like, video] / |s|``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from scipy import sparse

from two_tower.errors import UserError

NEIGHBOURS = ("indptr", "indices", "values")
"""Tensors ``neighbours.…`` of the weights: CSR over the vocabulary ``video``. A row is a liked video, a column the one
whose score it adds to; values are on the scale of a user's sum before it is scaled to length 1."""


def from_tensors(tensors: Mapping[str, np.ndarray], videos: int) -> sparse.csr_matrix | None:
    """The matrix [videos, videos] of the tensors, or None where they have none. Raises UserError where it is no CSR."""
    found = [tensors.get(f"neighbours.{name}") for name in NEIGHBOURS]
    if all(tensor is None for tensor in found):
        return None
    try:
        indptr, indices, values = (np.asarray(tensor) for tensor in found)
        matrix = sparse.csr_matrix((values.astype(np.float32), indices, indptr), shape=(videos, videos))
        matrix.check_format()
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the neighbours among the weights are not those of {videos} videos: {error}", "export the model anew"
        ) from error
    return matrix if matrix.nnz else None


def to_tensors(neighbours: sparse.csr_matrix | None) -> dict[str, np.ndarray]:
    """The tensors that :func:`from_tensors` made a matrix of."""
    if neighbours is None or not neighbours.nnz:
        return {}
    types = {"indptr": np.int64, "indices": np.int32, "data": np.float32}
    arrays = (getattr(neighbours, name).astype(kind) for name, kind in types.items())
    return {f"neighbours.{name}": array for name, array in zip(NEIGHBOURS, arrays, strict=True)}


def digest(neighbours: sparse.csr_matrix) -> str:
    """By which the database knows whether a version that is registered again has the same neighbours."""
    ordered = neighbours.sorted_indices()
    return hashlib.sha256(b"".join(tensor.tobytes() for tensor in to_tensors(ordered).values())).hexdigest()
