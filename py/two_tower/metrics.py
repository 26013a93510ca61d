"""Metrics as a version's record names them, and as people read them."""

from __future__ import annotations

TITLES = {
    "recall@20": "Recall@20",
    "ndcg@20": "NDCG@20",
    "map@20": "MAP@20",
    "auc": "AUC",
    "coverage@20": "Coverage@20",
}
"""Name in ``model_documents.metrics`` → heading of a table, in the order of its columns."""
HEADLINE = ("recall@20", "ndcg@20")
"""What the gate compares, and what a line about a version says of it."""
