"""The PostgreSQL servers that are installed on this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from two_tower.server.contract import NEWEST, OLDEST
from two_tower.settings import Settings

REMEDY = "run `make setup`, which installs what is missing"


@dataclass(frozen=True)
class Installation:
    """An installed PostgreSQL: its programs, its extensions, and the Python that its PL/Python uses."""

    bindir: Path
    version: int
    extensions: frozenset[str]
    python: str | None

    @property
    def rank(self) -> tuple[int, int]:
        """Order of preference: those that can run the recommender first, then the newest, as in ``setup.sh``."""
        return len(self.extensions & {"vector", "plpython3u"}), self.version


def installations() -> list[Installation]:
    """All supported PostgreSQLs on this machine, the preferred one first."""
    chosen = Settings().pg_bindir
    if chosen:
        found = [_inspect(chosen / "pg_config")]
    else:
        roots = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
        on_path = shutil.which("pg_config")
        configs = [root / "pg_config" for root in roots] + ([Path(on_path)] if on_path else [])
        found = [_inspect(config) for config in configs]
    unique = {item.bindir: item for item in found if item and OLDEST <= item.version <= NEWEST}
    return sorted(unique.values(), key=lambda item: item.rank, reverse=True)


def _inspect(config: Path) -> Installation | None:
    """The installation that ``pg_config`` describes; None for a client without a server."""
    if not config.exists():
        return None
    answer = subprocess.run(
        [config, "--bindir", "--sharedir", "--pkglibdir", "--version"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    bindir, share, lib = (Path(line) for line in answer[:3])
    major = re.search(r"\d+", answer[3])
    if major is None or not (bindir / "initdb").exists():
        return None
    extensions = frozenset(control.stem for control in (share / "extension").glob("*.control"))
    return Installation(bindir, int(major.group()), extensions, _linked_python(lib / "plpython3.so"))


def _linked_python(library: Path) -> str | None:
    """Minor version of the ``libpython`` that a shared library is linked with, such as ``3.11``."""
    if not library.exists():
        return None
    links = subprocess.run(["ldd", library], capture_output=True, text=True, check=False).stdout
    found = re.search(r"libpython(\d+\.\d+)\.so", links)
    return found.group(1) if found else None
