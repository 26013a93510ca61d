"""A reason to refuse a database."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """A reason to refuse, and its remedy."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}\n  → {self.remedy}"
