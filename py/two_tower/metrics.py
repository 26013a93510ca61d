"""Names of metrics in a version's record, and for people."""

from __future__ import annotations

import re
from collections.abc import Collection

TITLES = {
    "recall@20": "Recall@20",
    "ndcg@20": "NDCG@20",
    "map@20": "MAP@20",
    "precision@20": "Precision@20",
    "auc": "AUC",
    "coverage@20": "Coverage@20",
}
"""Name in ``model_documents.metrics`` → heading in tables, in the order of columns."""
HEADLINE = ("recall@20", "ndcg@20")
"""The metrics that the gate compares, and that a line about a version shows."""

_NAMES = {"recall": "Recall", "ndcg": "NDCG", "map": "MAP", "precision": "Precision"}


def titles(names: Collection[str]) -> dict[str, str]:
    """Metrics to show among ``names`` → headings, in order: :data:`TITLES`, then other lengths of lists."""
    found = {name: title for name, title in TITLES.items() if name in names}
    others = [(int(m[2]), list(_NAMES).index(m[1]), m) for n in names if (m := _of_a_length(n)) and n not in TITLES]
    return found | {m[0]: f"{_NAMES[m[1]]}@{m[2]}" for _, _, m in sorted(others, key=lambda each: each[:2])}


def _of_a_length(name: str) -> re.Match[str] | None:
    return re.fullmatch(rf"({'|'.join(_NAMES)})@(\d+)", name)
