"""Options that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SummaryOption = Annotated[
    Path | None, typer.Option(show_default=False, help="Also write the summary, as JSON, to this file.")
]

MinStars = Annotated[float, typer.Option(help="Reviews with at least this many stars are likes.")]
MaxNegativeStars = Annotated[float, typer.Option(help="Reviews with at most this many stars are nopes.")]
UsePriceFeature = Annotated[bool, typer.Option(help="Let prices take part.")]
Seed = Annotated[int, typer.Option(help="The same seed and data give the same model.")]
EmbeddingWorkers = Annotated[int, typer.Option(min=1, max=32, help="Connections that embed side by side.")]

# Limits of the gate, for one run; gate_overrides() says which setting each overrides.
MinRecall = Annotated[
    float | None,
    typer.Option(show_default="the setting gate_min_recall_at_20", help="Recall@20 must be at least this."),
]
MinNdcg = Annotated[
    float | None,
    typer.Option(show_default="the setting gate_min_ndcg_at_20", help="NDCG@20 must be at least this."),
]
OverPopularity = Annotated[
    float | None,
    typer.Option(
        show_default="the setting gate_over_popularity", help="Recall@20 must be this many times popularity's."
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        show_default="the setting gate_max_drop", help="Share by which it may be worse than the active version."
    ),
]


def gate_overrides(
    min_recall: float | None, min_ndcg: float | None, over_popularity: float | None, max_drop: float | None
) -> dict[str, float]:
    """The settings of the gate that options override."""
    given = {
        "gate_min_recall_at_20": min_recall,
        "gate_min_ndcg_at_20": min_ndcg,
        "gate_over_popularity": over_popularity,
        "gate_max_drop": max_drop,
    }
    return {name: value for name, value in given.items() if value is not None}
