"""Which variants of tests ``make test`` runs, and which are left to ``make soak``.

A test over several axes, such as every change under every engine, has their product as variants. With the mark
``sampled``, ``make test`` runs just enough variants to cover each value of each axis; ``make soak`` runs all. With a
number, as in ``sampled(6)``, it runs that many of similar variants, spread over their list. The mark ``soak`` leaves
slow tests, whose promise a cheaper test also checks, to ``make soak``. :func:`some` does so for all but a few
parameters.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pytest

Variant = Mapping[str, Hashable]


def covering(variants: Sequence[Variant]) -> list[int]:
    """Positions in ``variants`` of a few that together have each value of each axis; always the same ones."""
    missing = {value for variant in variants for value in variant.items()}
    chosen = []
    while missing:
        best = max(range(len(variants)), key=lambda at: len(missing & set(variants[at].items())))
        chosen.append(best)
        missing -= set(variants[best].items())
    return sorted(chosen)


def spread(count: int, number: int) -> list[int]:
    """At most ``number`` positions of ``count``, including the first, as far apart as possible."""
    return list(range(0, count, -(-count // number)))


def add_option(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run every variant where a sample is run otherwise")


def thin(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects what is left to ``make soak``, except for tests that are named on the command line."""
    if config.getoption("--soak") or any("::" in argument for argument in config.args):
        return
    left = set(left_to_soak(items))
    config.hook.pytest_deselected(items=[item for item in items if item in left])
    items[:] = [item for item in items if item not in left]


def left_to_soak(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """The items that ``make test`` does not run."""
    left = []
    sampled: dict[tuple[str, object], list[pytest.Function]] = {}
    for item in items:
        if item.get_closest_marker("soak"):
            left.append(item)
        elif isinstance(item, pytest.Function) and item.get_closest_marker("sampled"):
            sampled.setdefault((str(item.path), item.originalname), []).append(item)
    for variants in sampled.values():
        mark = variants[0].get_closest_marker("sampled")
        if mark and mark.args:
            chosen = spread(len(variants), *mark.args)
        else:
            chosen = covering([{name: _key(value) for name, value in v.callspec.params.items()} for v in variants])
        left += [variant for at, variant in enumerate(variants) if at not in chosen]
    return left


def _key(value: object) -> Hashable:
    """A hashable key that is equal for equal values; unhashable values are distinguished by identity."""
    return (type(value), value) if isinstance(value, Hashable) else id(value)


def some(values: Iterable[object], number: int) -> list[Any]:
    """Parameters: the first ``number`` of ``values`` for every run, the others only for ``make soak``."""
    return [value if at < number else pytest.param(value, marks=pytest.mark.soak) for at, value in enumerate(values)]
