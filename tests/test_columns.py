"""Columns that are read from the database equal its rows, wherever the stream is split, and leave no files behind."""

from __future__ import annotations

import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import psycopg
import pytest
from psycopg import sql

from conftest import Connection
from two_tower.trainer import columns
from two_tower.trainer.columns import read_columns

ROW = np.dtype(
    [("fields", ">i2"), ("l1", ">i4"), ("number", ">i4"), ("l2", ">i4"), ("label", ">i2"), ("l3", ">i4"),
     ("time", ">f8")]
)  # fmt: skip
TYPES = {"number": np.int32, "label": np.int8, "time": np.float64}


def query(rows: int, column: str = "n / 8.0::double precision") -> sql.Composed:
    return sql.SQL(
        "copy (select n, (n % 3 - 1)::smallint, {} from generate_series(1, {}) n) to stdout (format binary)"
    ).format(sql.SQL(column), sql.Literal(rows))


def test_columns_equal_the_rows_wherever_the_stream_is_split(
    db: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for rows, chunk in product((0, 1, 2, 3, 100, 1_000), (1, ROW.itemsize - 1, ROW.itemsize, ROW.itemsize + 1, 4096)):
        monkeypatch.setattr(columns, "CHUNK", chunk)
        found = read_columns(db, query(rows), ROW, TYPES)
        n = np.arange(1, rows + 1)
        for name, expected in (("number", n), ("label", n % 3 - 1), ("time", n / 8)):
            assert found[name].dtype == TYPES[name]
            assert np.array_equal(found[name], expected), (name, rows, chunk)
        assert list(tmp_path.iterdir()) == []


def test_a_copy_that_fails_leaves_no_file(db: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(columns, "CHUNK", 64)
    with pytest.raises(psycopg.errors.DivisionByZero):
        read_columns(db, query(1_000, "(1 / (500 - n))::double precision"), ROW, TYPES)
    assert list(tmp_path.iterdir()) == []
