"""A model as rows: ``weights.safetensors`` in the layout that the database sums.

Towers are rows of ``two_tower.model_weights``; ``sql/30_inference/model_rows.sql`` describes each part. Towers of
another trainer, with another shape, have no rows; such a version needs onnxruntime. Neighbours are rows of
``two_tower.neighbour_lists`` for any towers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import psycopg

from two_tower.errors import UserError
from two_tower.features import DIM, ITEM_NUMERIC
from two_tower.neighbours import Neighbours

if TYPE_CHECKING:  # scipy comes with the trainer; registering a model does not need it
    from scipy import sparse

INNER = DIM - 1
"""Entries of a taste and of a place."""

WIDEST = 16_000
"""Entries of the longest vector that pgvector stores: the widest content layer that can be rows."""

Row = tuple[str, str, int, np.ndarray]
"""Tower, part, position and weights, [INNER] or [hidden] float32."""


def tensors_of(weights: bytes) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file. Raises UserError if it is not one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(weights))
    except SafetensorError as error:
        raise UserError(f"the weights are not a safetensors file: {error}", "export the model anew") from error


def to_rows(tensors: Mapping[str, np.ndarray]) -> list[Row] | None:
    """The rows of both towers, or None if the tensors are not those of ``two_tower.model``."""
    numbers = len(ITEM_NUMERIC)
    try:
        user, user_bias = tensors["user.weight"], tensors["user.bias"]
        own, bias = tensors["item.own"], tensors["item.bias"]
        centres, outward = tensors["item.centres"], tensors["item.outward"]
        scalars = {name: tensors[f"item.{name}"] for name in ("mean", "divisor", "used")}
        square_width = float(tensors["item.square_width"])
        scale = tensors.get("item.scale", np.ones(centres.shape[1], dtype=np.float32))
    except KeyError:
        return None
    hidden, width = centres.shape
    shapes = (user.shape[1:], own.shape[1:], outward.shape[1:], user_bias.shape, bias.shape)
    if set(shapes) != {(INNER,)} or width < 2 * numbers or hidden > WIDEST:
        return None
    stop = width - numbers  # inputs before the ids
    if scale.shape != (width,) or not (scale[: 2 * numbers] == 1).all():
        return None
    rows: list[Row] = [("user", "bias", 0, user_bias), ("item", "bias", 0, bias)]
    rows += [("user", "row", int(at) + 1, user[at]) for at in np.flatnonzero(user.any(axis=1))]
    rows += [("item", "own", stop + at + 1, own[at]) for at in range(len(own))]
    rows += [("item", name, 0, values) for name, values in scalars.items()]
    if hidden:
        rows.append(("item", "decay", 0, np.array([-0.5 / square_width])))
        rows.append(("item", "square", 0, np.square(centres).sum(axis=1)))
        for column, weight in enumerate(-2 * centres.T):
            part = "known" if numbers <= column < 2 * numbers else "centre"
            rows.append(("item", part, column + 1 - (0 if column < numbers else numbers), weight))
        rows += [("item", "scale", int(at) + 1 - numbers, scale[[at]]) for at in np.flatnonzero(scale != 1)]
        rows += [("item", "outward", at + 1, outward[:, at]) for at in range(INNER)]
    return rows


def to_tensors(rows: Iterable[Row], user_dim: int, item_dim: int) -> dict[str, np.ndarray]:
    """The inverse of :func:`to_rows`: tensors from rows."""
    parts: dict[tuple[str, str], dict[int, np.ndarray]] = {}
    for tower, part, position, weight in rows:
        parts.setdefault((tower, part), {})[position] = np.asarray(weight, dtype=np.float32)
    numbers = len(ITEM_NUMERIC)
    own = parts.get(("item", "own"), {})
    stop = item_dim - len(own)
    hidden = len(parts["item", "square"][0]) if ("item", "square") in parts else 0
    tensors = {
        "user.weight": np.zeros((user_dim, INNER), dtype=np.float32),
        "user.bias": parts["user", "bias"][0],
        "item.bias": parts["item", "bias"][0],
        "item.own": np.zeros((len(own), INNER), dtype=np.float32),
        "item.centres": np.zeros((hidden, stop + numbers), dtype=np.float32),
        "item.outward": np.zeros((hidden, INNER), dtype=np.float32),
        "item.square_width": np.ones((), dtype=np.float32),
        "item.scale": np.ones(stop + numbers, dtype=np.float32),
        **{f"item.{name}": parts["item", name][0] for name in ("mean", "divisor", "used")},
    }
    for position, weight in parts.get(("user", "row"), {}).items():
        tensors["user.weight"][position - 1] = weight
    for position, weight in own.items():
        tensors["item.own"][position - stop - 1] = weight
    if hidden:
        tensors["item.square_width"] = np.array(-0.5 / parts["item", "decay"][0][0], dtype=np.float32)
        for position, weight in parts["item", "centre"].items():
            tensors["item.centres"][:, position - 1 + (0 if position <= numbers else numbers)] = weight / -2
        for position, weight in parts.get(("item", "known"), {}).items():
            tensors["item.centres"][:, position - 1 + numbers] = weight / -2
        for position, weight in parts.get(("item", "scale"), {}).items():
            tensors["item.scale"][position - 1 + numbers] = weight[0]
        for position, weight in parts["item", "outward"].items():
            tensors["item.outward"][:, position - 1] = weight
    return tensors


def store(connection: psycopg.Connection[Any], version: str, rows: Iterable[Row]) -> None:
    """Write the rows of a version before it is registered, replacing those of an earlier attempt."""
    connection.execute("delete from two_tower.model_weights where model_version = %s", (version,))
    with connection.cursor().copy(
        "copy two_tower.model_weights (model_version, tower, part, position, weight) from stdin (format binary)"
    ) as copy:
        # A vector in pgvector's binary format; bytea passes bytes on unchanged.
        copy.set_types(["text", "text", "text", "int4", "bytea"])
        for tower, part, position, weight in rows:
            image = np.array([len(weight), 0], dtype=">i2").tobytes() + np.asarray(weight, dtype=">f4").tobytes()
            copy.write_row((version, tower, part, position, image))


def read(connection: psycopg.Connection[Any], version: str) -> Iterator[Row]:
    """The rows of a version, from the database."""
    with (
        connection.cursor() as cursor,
        cursor.copy(
            "copy (select tower, part, position, weight from two_tower.model_weights where model_version ="
            " %s) to stdout (format binary)",
            (version,),
        ) as copy,
    ):
        copy.set_types(["text", "text", "int4", "bytea"])
        for tower, part, position, image in copy.rows():
            yield tower, part, position, np.frombuffer(image, dtype=">f4", offset=4).astype(np.float32)


# ---------------------------------------------------------------------------------------------------- neighbours


def store_neighbours(
    connection: psycopg.Connection[Any], version: str, videos: Sequence[str], neighbours: Neighbours | None
) -> None:
    """Write the neighbours of a version before it is registered, replacing those of an earlier attempt.

    ``videos`` are the ids of its vocabulary, in order.
    """
    connection.execute("delete from two_tower.neighbour_lists where model_version = %s", (version,))
    if neighbours is None:
        return
    try:
        ids = np.frombuffer(b"".join(UUID(video).bytes for video in videos), dtype="V16")
    except ValueError as error:
        raise UserError(f"the vocabulary of videos contains an invalid id: {error}", "export the model anew") from error
    with connection.cursor().copy(
        "copy two_tower.neighbour_lists (model_version, video_id, neighbour_ids, weights) from stdin (format binary)"
    ) as copy:
        copy.set_types(["text", "bytea", "bytea", "bytea"])
        for row in np.flatnonzero(np.diff(neighbours.indptr)):
            entries = slice(neighbours.indptr[row], neighbours.indptr[row + 1])
            listed = ids[neighbours.indices[entries]], neighbours.values[entries].astype(">f4")
            images = (_array_image(oid, values) for oid, values in zip((_UUID, _FLOAT4), listed, strict=True))
            copy.write_row((version, ids[row].tobytes(), *images))


_UUID, _FLOAT4 = 2950, 700
"""Object ids of types, which are the same in every PostgreSQL."""


def _array_image(oid: int, values: np.ndarray) -> bytes:
    """A one-dimensional array of fixed-size elements in PostgreSQL's binary format."""
    head = np.array([1, 0, oid, len(values), 1], dtype=">i4").tobytes()
    rows = np.zeros(len(values), dtype=[("size", ">i4"), ("value", f"V{values.itemsize}")])
    rows["size"], rows["value"] = values.itemsize, values.view(f"V{values.itemsize}")
    return head + rows.tobytes()


def read_neighbours(
    connection: psycopg.Connection[Any], version: str, videos: Sequence[str]
) -> sparse.csr_matrix | None:
    """The neighbours of a version over its vocabulary ``videos``, from the database; None if it has none."""
    from scipy import sparse

    at = {video: position for position, video in enumerate(videos)}
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    for video, listed, weights in connection.execute(
        "select video_id::text, neighbour_ids::text[], weights from two_tower.neighbour_lists where model_version = %s",
        (version,),
    ):
        rows += [at[video]] * len(listed)
        columns += [at[neighbour] for neighbour in listed]
        values += weights
    if not rows:
        return None
    return sparse.csr_matrix((np.array(values, dtype=np.float32), (rows, columns)), shape=(len(at), len(at)))
