"""Location of the files that define the database."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
DATABASE_FILES = _PACKAGE / "_database" if (_PACKAGE / "_database").is_dir() else _PACKAGE.parents[1]
"""The directory with ``migrations``, ``sql`` and ``plpython``: inside an installed wheel, or the repository's root."""
