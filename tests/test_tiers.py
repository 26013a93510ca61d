"""Each variant that ``make test`` leaves to ``make soak`` is similar to one that it runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Hashable
from itertools import pairwise, product
from pathlib import Path

import pytest

import tiers
from tiers import covering, spread

VARIANTS: list[list[dict[str, Hashable]]] = [
    [{"a": a, "b": b} for a, b in product(range(3), range(4))],
    [{"a": a, "b": b, "c": c} for a, b, c in product("xy", range(5), (None, True)) if (a, b) != ("x", 3)],
    [{"a": a} for a in range(6)],
    [{"a": a, "b": a % 2} for a in range(6)],
    [{"a": 1}],
    [],
]


@pytest.mark.parametrize("variants", VARIANTS)
def test_every_value_of_every_axis_is_in_the_sample(variants: list[dict[str, Hashable]]) -> None:
    chosen = [variants[at] for at in covering(variants)]
    assert {v for variant in chosen for v in variant.items()} == {v for variant in variants for v in variant.items()}


def test_a_sample_is_as_small_as_the_longest_axis() -> None:
    assert len(covering(VARIANTS[0])) == 4
    assert len(covering(VARIANTS[1])) == 5


def test_all_values_of_a_single_axis_are_sampled() -> None:
    assert covering(VARIANTS[2]) == list(range(6))


@pytest.mark.parametrize(("count", "number"), [(35, 6), (6, 6), (5, 6), (1, 3), (7, 1), (84, 16)])
def test_a_sample_of_a_number_is_spread_evenly(count: int, number: int) -> None:
    chosen = spread(count, number)
    assert chosen[0] == 0
    assert min(count, number) / 2 <= len(chosen) <= min(count, number)
    assert max([b - a for a, b in pairwise([*chosen, count])]) <= -(-count // number)


SUITE = """
import pytest

@pytest.mark.sampled
@pytest.mark.parametrize("engine", ["sql", "onnxruntime"])
@pytest.mark.parametrize("change", ["like", "nope", "skip"])
def test_product(engine, change): pass

@pytest.mark.sampled(2)
@pytest.mark.parametrize("alike", range(4))
def test_alike(alike): pass

@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.soak)])
def test_seeds(seed): pass
"""


CONFTEST = f"""
import sys

sys.path.insert(0, {str(Path(tiers.__file__).parent)!r})
from tiers import add_option as pytest_addoption, thin as pytest_collection_modifyitems
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "passed"),
    [(["test_it.py"], 3 + 2 + 1), (["test_it.py", "--soak"], 6 + 4 + 2), (["test_it.py::test_product"], 6)],
    ids=["test", "soak", "by name"],
)
def test_soak_runs_what_test_leaves_out(arguments: list[str], passed: int, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), *arguments]
    plain = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=plain, capture_output=True, text=True, check=False, timeout=60)
    assert re.findall(r"(\d+) passed", done.stdout) == [str(passed)], done.stdout + done.stderr


@pytest.mark.xdist_group("groups")
def test_tests_of_a_group_run_on_one_worker(request: pytest.FixtureRequest) -> None:
    """pytest-xdist recognises groups by the test's id, which some versions of pytest do not let it change."""
    by_groups = bool(getattr(request.config.option, "loadgroup", False))
    assert request.node.nodeid.endswith("@groups") is by_groups
