"""Which generated variants ``make test`` runs, and which are left to ``make soak``.

A test over several axes, such as every change under every engine, makes their product. Under the mark ``sampled``
``make test`` takes so many of the variants that every value of every axis is there; ``make soak`` takes all. With a
number, ``sampled(6)``, it takes so many of variants that are alike, from all parts of their list. The mark ``soak``
leaves to ``make soak`` what takes seconds and whose promise a cheaper test holds too, and single variants: :func:`some`
of many like the others run each time.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pytest

Variant = Mapping[str, Hashable]


def covering(variants: Sequence[Variant]) -> list[int]:
    """Where in ``variants`` those are that together have each value of each axis; few, and always the same ones."""
    missing = {value for variant in variants for value in variant.items()}
    chosen = []
    while missing:
        best = max(range(len(variants)), key=lambda at: len(missing & set(variants[at].items())))
        chosen.append(best)
        missing -= set(variants[best].items())
    return sorted(chosen)


def spread(count: int, number: int) -> list[int]:
    """At most ``number`` places of ``count``, the first among them, as far apart as they can be."""
    return list(range(0, count, -(-count // number)))


def add_option(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run every variant where a sample is run otherwise")


def thin(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects what is left to ``make soak``; but whoever names a test runs all of it."""
    if config.getoption("--soak") or any("::" in argument for argument in config.args):
        return
    left = set(left_to_soak(items))
    config.hook.pytest_deselected(items=[item for item in items if item in left])
    items[:] = [item for item in items if item not in left]


def left_to_soak(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """The items that ``make test`` does without."""
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
    """The same for the same value; values that cannot be hashed are told apart by their identity."""
    return (type(value), value) if isinstance(value, Hashable) else id(value)


def some(values: Iterable[object], number: int) -> list[Any]:
    """Parameters: the first ``number`` of ``values`` for every run, the others for ``make soak`` alone."""
    return [value if at < number else pytest.param(value, marks=pytest.mark.soak) for at, value in enumerate(values)]
