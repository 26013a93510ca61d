"""Where the files that make up the database are."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
DATABASE_FILES = _PACKAGE / "_database" if (_PACKAGE / "_database").is_dir() else _PACKAGE.parents[1]
"""Holds ``migrations``, ``sql`` and ``plpython``: inside an installed wheel, or the root of the repository."""
