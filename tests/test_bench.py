"""The benchmarks run at tiny sizes and yield every figure. Measured values are not asserted: the machine is busy."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import Connection
from two_tower.bench import catalogue, freshness
from two_tower.bench.common import Figure, compared, make_catalogue, make_people
from two_tower.cli.main import app
from world_fixtures import one

TOY = freshness.Scale(
    sizes=(200, 400), changed=50, videos=300, short_history=5, users=200, history=10, rounds=2, likes=10, seconds=0.1
)
FRESHNESS = {
    "refresh_50_at_400_vs_200": "ms",
    **{
        f"like_rate_{what}{mode}": "likes/s"
        for mode in ("", "_slow_disk", "_async")
        for what in ("with_triggers", "with_an_empty_one", "vs_empty_trigger")
    },
    "like_p99_during_refresh": "ms",
    **{
        f"{name}{engine}": unit
        for engine in ("", "_sql", "_onnxruntime")
        for name, unit in (
            ("refresh_vs_client_pipeline", "vectors/s"),
            ("refresh_vs_client_pipeline_no_features", "vectors/s"),
            ("refresh_vs_client_by_key", "vectors/s"),
            ("cold_first_embed_ms", "ms"),
            ("embed_user_p50_ms", "ms"),
            ("warm_backend_mb", "MB"),
        )
    },
}


@pytest.mark.soak
@pytest.mark.database
def test_freshness_yields_every_figure_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness.Scale, "quick", lambda: TOY)
    made: list[Path] = []
    directory = tempfile.mkdtemp

    def remember(**words: str) -> str:
        made.append(Path(directory(**words)))
        return str(made[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", remember)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["bench", "freshness", "--quick", "--json"])
    assert result.exit_code == 0, result.output
    assert "quick" in result.stderr
    figures = json.loads(result.stdout)
    assert {f["figure"]: f["unit"] for f in figures} == FRESHNESS
    for figure in figures:
        assert list(figure) == ["figure", "value", "baseline", "ratio", "unit"]
        assert all(math.isfinite(figure[name]) and figure[name] > 0 for name in ("value", "baseline", "ratio")), figure
    assert made
    assert not any(path.exists() for path in made)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.soak
@pytest.mark.database
def test_a_catalogue_is_measured_through_the_life_of_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = catalogue.Scale(videos=3_000, users=1_200)
    monkeypatch.setattr(catalogue.Scale, "quick", lambda: toy)
    monkeypatch.setattr(catalogue.Scale, "smaller", lambda scale: catalogue.Scale(videos=1_000, users=1_000))
    result = CliRunner().invoke(app, ["bench", "catalogue", "--quick", "--json"])
    assert result.exit_code == 0, result.output
    figures = {f["figure"]: f for f in json.loads(result.stdout)}
    assert {name: f["unit"] for name, f in figures.items()} == {
        "register_s": "s", "first_refresh_s": "s", "backfill_s": "s", "activate_s": "s", "version_mb": "MB",
        "refresh_1000_users_s": "s", "refresh_100_videos_s": "s", "backend_mb": "MB",
        **dict.fromkeys(SIZES, "bytes"), **dict.fromkeys(BUILDS, "s"),
    }  # fmt: skip
    assert all(f["value"] > 0 for f in figures.values())


SIZES = [
    f"bytes_per_{name}"
    for name in ("video_vector", "video_index", "video_taste", "user_vector", "user_features", "decision")
]
BUILDS = [f"index_{memory}{workers}_s" for memory in ("held", "quarter") for workers in ("", "_2_workers")]


@pytest.mark.world
def test_rows_have_sizes_and_an_index_is_built_again_as_it_was(db: Connection) -> None:
    before = one(db, "select pg_get_indexdef(%s::regclass)", catalogue.INDEX)
    sizes, builds = catalogue.bytes_per_row(db), catalogue.index_builds(db)
    assert list(sizes) == SIZES
    # Of 128 numbers in half precision, or of 127 in single.
    assert sizes["bytes_per_video_vector"] > 256
    assert sizes["bytes_per_user_vector"] > 256
    assert sizes["bytes_per_video_taste"] > 508
    assert list(builds) == BUILDS
    assert all(seconds > 0 for seconds in builds.values())
    assert one(db, "select pg_get_indexdef(%s::regclass)", catalogue.INDEX) == before
    assert one(db, "show max_parallel_maintenance_workers") == "2"


@pytest.mark.database
def test_a_world_is_made_without_logging_it(db: Connection) -> None:
    modes = "select tgrelid::regclass::text, tgname, tgenabled from pg_trigger order by 1, 2"
    before = db.execute(modes).fetchall()
    make_catalogue(db, 100)
    make_people(db, users=20, decisions=5, videos=100)
    assert one(db, "select count(*) from public.user_video_decisions") == 100
    assert one(db, "select count(*) from two_tower.video_changes") == 0
    assert one(db, "select count(*) from two_tower.pending_users") == 0
    assert db.execute(modes).fetchall() == before


def test_figures_of_the_full_run_have_the_documented_names() -> None:
    sizes = freshness.Scale().sizes
    names = [f"refresh_1000_at_{freshness.short(n)}_vs_{freshness.short(sizes[0])}" for n in sizes[1:]]
    assert names == ["refresh_1000_at_100k_vs_10k", "refresh_1000_at_1m_vs_10k"]


@pytest.mark.parametrize("sizes", ["10", "10,many", "0,10", ","])
def test_sizes_that_cannot_be_compared_are_refused(sizes: str) -> None:
    assert CliRunner().invoke(app, ["bench", "freshness", "--sizes", sizes]).exit_code == 2


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    figure = compared("x", [(1, 2), (30, 10), (8, 8)], "ms")
    assert figure == Figure("x", 8, 8, 1.0, "ms")
    assert Figure("x", 123456.7, None, None, "ms").as_dict() == {
        "figure": "x", "value": 123500.0, "baseline": None, "ratio": None, "unit": "ms",
    }  # fmt: skip


def test_figures_are_shown_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    from two_tower.cli.bench import show

    show([Figure("speed", 12345.6, 2.0, 6172.8, "rows/s"), Figure("alone", 1.5, None, None, "MB")], False, "t")
    shown = capsys.readouterr().out
    assert "12,346" in shown
    assert "–" in shown
