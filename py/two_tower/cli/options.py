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
