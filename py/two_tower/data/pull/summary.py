"""The result of a pull."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field


@dataclass
class TableSummary:
    """The result for one table."""

    rows: int = 0
    """At the source, in the snapshot."""
    buckets: int = 0
    changed_buckets: int = 0
    copied: int = 0
    """Rows that were transferred."""
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    orphans: int = 0
    """Rows that refer to a user, video, tag or performer that the source does not have; they are left out."""
    incomplete: int = 0
    """Rows without a required value, such as a tag's name, or with a name or address too long for an index; they are
    left out."""


@dataclass
class PullSummary:
    """The results for all tables that the source has."""

    source: str
    """Role, host, port and database; no password."""
    tables: dict[str, TableSummary] = field(default_factory=dict)
    bytes: int = 0
    """Bytes of rows and digests that the source sent."""
    anonymised: bool = False
    dry_run: bool = False
    seconds: float = 0.0

    def to_json(self) -> str:
        """The summary as a JSON object."""
        return json.dumps(asdict(self), ensure_ascii=False)
