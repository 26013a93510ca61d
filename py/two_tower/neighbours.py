"""The sparse part of a score: what a like of one video adds to others, in addition to the towers.

For a user whose history has the sum ``s``, of length ``|s|`` before it is scaled to 1, the score of a video is
``cos(s, place) + sum over the likes of weight * neighbours[like, video] / |s|``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from two_tower.errors import UserError

if TYPE_CHECKING:  # scipy comes with the trainer; registering a model does not need it
    from scipy import sparse


class Neighbours(NamedTuple):
    """The tensors ``neighbours.…`` of the weights: CSR over the vocabulary ``video``. Rows are liked videos, columns
    the videos whose score they add to; values are on the scale of a user's sum before it is scaled to length 1."""

    indptr: np.ndarray
    """[videos + 1] int64"""
    indices: np.ndarray
    """[entries] int32, ascending in each row"""
    values: np.ndarray
    """[entries] float32"""

    @property
    def digest(self) -> str:
        """A hash by which the database checks that a version registered again has the same neighbours."""
        return hashlib.sha256(b"".join(tensor.tobytes() for tensor in self)).hexdigest()


def read(tensors: Mapping[str, np.ndarray], videos: int) -> Neighbours | None:
    """The neighbours among the tensors of a model, or None if there are none. Raises UserError if they are no CSR
    matrix of ``videos`` rows and columns."""
    found = [tensors.get(f"neighbours.{name}") for name in Neighbours._fields]
    if all(tensor is None for tensor in found):
        return None
    wrong = _wrong(found, videos)
    if wrong:
        raise UserError(
            f"the neighbours among the weights are not those of {videos} videos: {wrong}", "export the model anew"
        )
    start, column, value = (np.asarray(tensor) for tensor in found)
    order = np.lexsort((column, np.repeat(np.arange(videos), np.diff(start))))
    if not len(order):
        return None
    return Neighbours(start.astype(np.int64), column[order].astype(np.int32), value[order].astype(np.float32))


def _wrong(found: list[np.ndarray | None], videos: int) -> str | None:
    """What is wrong with the three arrays; None if they are valid."""
    for name, tensor in zip(Neighbours._fields, found, strict=True):
        if tensor is None:
            return f"there is no {name}"
        if tensor.ndim != 1:
            return f"{name} has {tensor.ndim} dimensions"
        if name != "values" and not np.issubdtype(tensor.dtype, np.integer):
            return f"{name} are no integers"
    start, column, value = (np.asarray(tensor) for tensor in found)
    if len(start) != videos + 1:
        return f"indptr has {len(start)} entries"
    if start[0] != 0 or (np.diff(start) < 0).any() or start[-1] != len(column) or len(column) != len(value):
        return "indptr does not divide the entries into rows"
    if len(column) and not 0 <= column.min() <= column.max() < videos:
        return "indices name a video that is not there"
    return None


def from_tensors(tensors: Mapping[str, np.ndarray], videos: int) -> sparse.csr_matrix | None:
    """:func:`read` as a matrix [videos, videos]."""
    from scipy import sparse

    found = read(tensors, videos)
    return found and sparse.csr_matrix((found.values, found.indices, found.indptr), shape=(videos, videos))


def to_tensors(neighbours: sparse.csr_matrix | None) -> dict[str, np.ndarray]:
    """The tensors of a matrix: the inverse of :func:`from_tensors`."""
    if neighbours is None or not neighbours.nnz:
        return {}
    types = {"indptr": np.int64, "indices": np.int32, "data": np.float32}
    arrays = (getattr(neighbours, name).astype(kind) for name, kind in types.items())
    return {f"neighbours.{name}": array for name, array in zip(Neighbours._fields, arrays, strict=True)}
