"""The notebook of ``examples/``: its cells train, evaluate and explain with only a DSN."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest

from conftest import NewDatabase
from documents import REPOSITORY
from two_tower.data import imports
from two_tower.world import generate

NOTEBOOK = json.loads((REPOSITORY / "examples" / "evaluate.ipynb").read_text(encoding="utf-8"))
CELLS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_valid_and_has_no_stored_output() -> None:
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    for at, source in enumerate(CELLS):
        compile(source, f"cell {at}", "exec")
    assert [cell["outputs"] for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"] == [[] for _ in CELLS]


@pytest.mark.soak
def test_the_notebook_trains_evaluates_and_explains(
    database: NewDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dsn = database()
    world = generate(tmp_path, users=300, videos=300)
    with psycopg.connect(dsn, autocommit=True) as connection:
        imports.import_catalog(connection, world.catalog)
        imports.import_decisions(connection, world.decisions, create_users=True)
    monkeypatch.setenv("DATABASE_URL", dsn)
    names: dict[str, Any] = {}
    for at, source in enumerate(CELLS):
        exec(compile(source, f"cell {at}", "exec"), names)
    found = dict(names["metrics"].select("recommender", "ndcg@20").iter_rows())
    assert {"two-tower", "EASE^R", "item-kNN", "popularity", "random"} <= found.keys()
    assert found["two-tower"] > 1.5 * found["popularity"]
    recommended, parts = names["recommended"], names["parts"]
    assert recommended.height == 10
    assert set(recommended["reason"]) == {"taste"}
    assert parts["value"].sum() == pytest.approx(recommended["score"][0], abs=3e-3)
    assert parts.filter(pl.col("kind") == "like").height > 0
    assert "sum of the parts" in capsys.readouterr().out
