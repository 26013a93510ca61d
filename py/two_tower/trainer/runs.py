"""Directories of runs: ``DIR/runs/NAME``, and ``DIR/latest``, a link to the newest."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from two_tower.errors import UserError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@contextmanager
def run_directory(root: Path, name: str) -> Iterator[Path]:
    """An empty directory to fill. It becomes ``root/runs/name``, and the latest, if the block ends without error.

    Raises UserError if the name is not valid for a directory, or is taken, or if nothing can be written there.
    """
    require_free(root, name)
    runs = root / "runs"
    run, draft = runs / name, runs / f".{name}.{secrets.token_hex(4)}.partial"
    try:
        draft.mkdir(parents=True)
        yield draft
        draft.rename(run)
        _point(root / "latest", run)
    except OSError as error:
        raise UserError(f"cannot write to {run}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def require_free(root: Path, name: str) -> None:
    """Raises UserError if the name is invalid or taken."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"a run cannot be called {name!r}", "a name has 1 to 63 letters, digits, dots, dashes and underscores"
        )
    if (root / "runs" / name).exists():
        raise UserError(
            f"there is a run {root / 'runs' / name} already", "give the new one another name, or leave it to the time"
        )


def name_by_time(root: Path, made: datetime, zone: str = "Z") -> str:
    """An unused name: the time and its ``zone``, with a number if two runs begin in one second."""
    stem = f"{made:%Y%m%dT%H%M%S}{zone}"
    return next(name for n in range(1000) if not (root / "runs" / (name := f"{stem}.{n}" if n else stem)).exists())


def _point(latest: Path, run: Path) -> None:
    """Makes ``latest`` a link to ``run``, in one step: a reader finds the old run or the new one."""
    if latest.exists() and not latest.is_symlink():
        raise UserError(f"{latest} is not a link, and is left as it is", "move it away; the new run is in " + str(run))
    draft = latest.with_name(f".{latest.name}.{run.name}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(run.relative_to(latest.parent))
    draft.replace(latest)
