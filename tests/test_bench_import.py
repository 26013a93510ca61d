"""The benchmark of imports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from two_tower.bench.imports import VIDEOS, run, write_reviews
from two_tower.server.embedded import Server


@pytest.mark.soak
def test_the_benchmark_of_imports_yields_every_figure(new_server: Callable[..., Server]) -> None:
    server = new_server()
    server.start()
    figures = {figure.figure: figure for figure in run(server, 3_000, 1, lambda _what, _share: None)}
    assert list(figures) == ["import_vs_copy", "reimport_vs_copy", "import_peak_mb"]
    for figure in figures.values():
        assert figure.baseline is not None
        assert figure.ratio == pytest.approx(figure.value / figure.baseline)
    assert 30 < figures["import_peak_mb"].value < 500


def test_reviews_are_about_the_catalogue(tmp_path: Path) -> None:
    write_reviews(tmp_path / "a.csv", 5_000)
    write_reviews(tmp_path / "b.csv", 5_000)
    frame = pl.read_csv(tmp_path / "a.csv")
    assert len(frame) == 5_000
    assert frame["reviewer_id"].n_unique() == 100
    assert set(frame["product_url"]) <= {f"https://videos.example/{n}" for n in range(VIDEOS)}
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
