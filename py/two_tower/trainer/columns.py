"""Columns from a binary COPY of fixed-width rows, in memory-mapped temporary files: tens of millions of rows take room
on a disk, and memory only while they are read.

The files are unlinked as soon as they are created. They are in ``TMPDIR``, which should not be a ``tmpfs``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql

HEADER = 19
"""Bytes before the first row: signature, flags, length of the extension."""
TRAILER = 2
"""Bytes after the last row."""
CHUNK = 4 << 20
"""Bytes of rows that are converted to columns at once."""


def read_columns(
    connection: psycopg.Connection[Any], query: sql.Composed, row: np.dtype[Any], types: Mapping[str, npt.DTypeLike]
) -> dict[str, np.ndarray]:
    """The columns of ``query``, a binary COPY to standard output; read only.

    ``row``: a field of two bytes, then the length and the value of each column; ``types``: the types of the columns to
    keep, by the names that ``row`` gives their values.
    """
    files: dict[str, BinaryIO] = {}
    try:
        for name in types:
            files[name] = tempfile.TemporaryFile(prefix="two-tower-training-")  # noqa: SIM115 - closed below
        count, pending, header = 0, bytearray(), HEADER
        with connection.cursor().copy(query) as copy:
            for block in copy:
                pending += block
                if len(pending) >= CHUNK + HEADER:
                    del pending[:header]
                    count, pending, header = count + _append(files, types, pending, row), _rest(pending, row), 0
        del pending[:header]
        del pending[-TRAILER:]
        count += _append(files, types, pending, row)
        found = {}
        for name, file in files.items():
            file.flush()
            # An empty file cannot be mapped.
            found[name] = np.asarray(np.memmap(file, types[name], "r")) if count else np.empty(0, types[name])
        return found
    finally:
        for file in files.values():
            file.close()  # the mapping keeps the room on the disk


def _append(
    files: Mapping[str, BinaryIO], types: Mapping[str, npt.DTypeLike], packed: bytearray, row: np.dtype[Any]
) -> int:
    """Appends the whole rows to the files; returns their number."""
    rows = np.frombuffer(packed, row, len(packed) // row.itemsize)
    for name, file in files.items():
        file.write(rows[name].astype(types[name]).tobytes())
    return len(rows)


def _rest(packed: bytearray, row: np.dtype[Any]) -> bytearray:
    """The bytes after the last whole row."""
    return packed[len(packed) // row.itemsize * row.itemsize :]
