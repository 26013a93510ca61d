"""The modules of two_tower import each other in one direction: no cycles, and packages import only lower ones.

Imports inside functions count too, since they can form a cycle. Those for type checkers alone do not. ARCHITECTURE.md
gives a reason for each long module.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import two_tower

ROOT = Path(two_tower.__file__).parent

GROUND = "the modules of two_tower itself"
ARROWS: dict[str, set[str]] = {
    GROUND: set(),
    "data": set(),
    "trainer": {"data"},
    "server": set(),
    "lifecycle": {"data", "trainer"},
    "bench": {"lifecycle", "server", "trainer"},
    "ui": {"lifecycle", "server"},
    "cli": {"bench", "data", "lifecycle", "server", "trainer"},
}
"""Package -> packages that it may import, besides itself and the base modules."""

ENTRY_POINTS = {"two_tower.__main__", "two_tower.cli.main"}
"""Entry points of programs. No other module imports them."""


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def statements(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if is_for_type_checkers(child):
            assert isinstance(child, ast.If)
            yield from statements(ast.Module(child.orelse, []))
        else:
            yield child
            yield from statements(child)


def imported(text: str, name: str, modules: set[str]) -> set[str]:
    """Those of ``modules`` that module ``name`` with this text imports, anywhere in it."""
    found = set()
    for node in statements(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & modules
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*name.split(".")[: -node.level], *([base] if base else [])])
            for alias in node.names:
                # A name imported from a package is a module, or defined in its __init__.
                found |= {f"{base}.{alias.name}"} & modules or {base} & modules
    return found - {name}


@cache
def graph() -> dict[str, set[str]]:
    paths = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {name: imported(path.read_text(), name, set(paths)) for name, path in paths.items()}


def package(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (ROOT / parts[1]).is_dir() else GROUND


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from two_tower.a import x", {"two_tower.a"}),
        ("from two_tower import a, b", {"two_tower.a", "two_tower.b"}),
        ("import two_tower.a as other", {"two_tower.a"}),
        ("from . import a", {"two_tower.a"}),
        ("from .a import x", {"two_tower.a"}),
        ("def f():\n    from two_tower.a import x", {"two_tower.a"}),
        ("if TYPE_CHECKING:\n    from two_tower.a import x", set()),
        ("if typing.TYPE_CHECKING:\n    from two_tower.a import x\nelse:\n    import two_tower.b", {"two_tower.b"}),
        ("try:\n    import two_tower.a\nexcept ImportError:\n    pass", {"two_tower.a"}),
        ("import json", set()),
    ],
)
def test_an_import_is_found(text: str, found: set[str]) -> None:
    assert imported(text, "two_tower.me", {"two_tower", "two_tower.a", "two_tower.b", "two_tower.me"}) == found


def test_modules_do_not_import_each_other_in_a_cycle() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(reversed(error.args[1])))


def test_packages_import_only_lower_packages() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in graph().items()
        if module not in ENTRY_POINTS
        for other in others
        if package(other) not in {package(module), GROUND, *ARROWS[package(module)]}
    ]
    assert sorted(wrong) == []


def test_every_allowed_import_between_packages_is_used() -> None:
    """So that the list, which ARCHITECTURE.md draws, has no outdated entry."""
    used = {(package(module), package(other)) for module, others in graph().items() for other in others}
    assert [(a, b) for a, below in ARROWS.items() for b in below if (a, b) not in used] == []


def test_nothing_imports_an_entry_point() -> None:
    importers = {(module, other) for module, others in graph().items() for other in others & ENTRY_POINTS}
    assert importers == {("two_tower.__main__", "two_tower.cli.main")}


def test_the_architecture_gives_a_reason_for_each_long_module() -> None:
    long = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if len(path.read_text().splitlines()) > 520}
    sentence = (ROOT.parents[1] / "ARCHITECTURE.md").read_text().partition("at most about 500 lines")[2]
    assert set(re.findall(r"`(\w+/\w+\.py)`", sentence.partition("\n\n")[0])) == long
