"""Columns out of a binary COPY of rows of one width, kept in temporary files and mapped: tens of millions of rows take
room on a disk, and memory as long as somebody looks at them.

The files have no name any more when they are filled. They lie where ``TMPDIR`` says, which had better be no ``tmpfs``.
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
"""Bytes before the first row: signature, flags, length of an extension."""
TRAILER = 2
"""Bytes after the last row."""
CHUNK = 4 << 20
"""Bytes of rows that are turned into columns at once."""


def read_columns(
    connection: psycopg.Connection[Any], query: sql.Composed, row: np.dtype[Any], types: Mapping[str, npt.DTypeLike]
) -> dict[str, np.ndarray]:
    """What ``query``, a COPY to standard output in binary, answers; read only.

    ``row``: a field of two bytes, then by twos the length and the value of each column; ``types``: of the columns
    that are kept, by the names that ``row`` gives their values.
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
            file.close()  # the map stays, and with it the room on the disk


def _append(
    files: Mapping[str, BinaryIO], types: Mapping[str, npt.DTypeLike], packed: bytearray, row: np.dtype[Any]
) -> int:
    """How many whole rows there were, which are in the files now."""
    rows = np.frombuffer(packed, row, len(packed) // row.itemsize)
    for name, file in files.items():
        file.write(rows[name].astype(types[name]).tobytes())
    return len(rows)


def _rest(packed: bytearray, row: np.dtype[Any]) -> bytearray:
    """What comes after the whole rows."""
    return packed[len(packed) // row.itemsize * row.itemsize :]
