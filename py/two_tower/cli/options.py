"""Options that several verbs have."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from two_tower.errors import UserError


def _load_env_files(ctx: typer.Context, value: list[Path] | None) -> list[Path] | None:
    from two_tower.supabase import load_env_file

    for path in [] if ctx.resilient_parsing else value or []:
        try:
            load_env_file(path)
        except UserError as error:
            raise typer.BadParameter(error.message) from error
    return value


def env_file(variable: str | None = None) -> Any:
    """An option that loads files into the environment before any other option reads it."""
    return typer.Option(
        "--env-file",
        envvar=variable,
        metavar="FILE",
        is_eager=True,
        callback=_load_env_files,
        show_default=False,
        help="Variables of this file, where they are not set; may be repeated, the first counts.",
    )


EnvFiles = Annotated[list[Path] | None, env_file()]

SummaryOption = Annotated[
    Path | None, typer.Option(show_default=False, help="Also write the summary, as JSON, to this file.")
]

MinStars = Annotated[float, typer.Option(min=0, max=5, help="Reviews with at least this many stars are likes.")]
MaxNegativeStars = Annotated[
    float, typer.Option(min=-1, max=5, help="Reviews with at most this many stars are nopes; with -1, none are.")
]
Mode = Annotated[
    Literal["all", "explicit", "reviews"],
    typer.Option(help="Learn from decisions and reviews, a decision overriding a review; or from one of them alone."),
]
Webhook = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        show_default=False,
        help="Tell this URL how it went, as Slack takes it; else TWO_TOWER_WEBHOOK.",
    ),
]
Mail = Annotated[
    list[str] | None,
    typer.Option(
        "--mail",
        metavar="ADDRESS",
        show_default=False,
        help="Send mail of how it went, by TWO_TOWER_SMTP; may be repeated; else TWO_TOWER_MAIL_TO.",
    ),
]
UsePriceFeature = Annotated[bool, typer.Option(help="Let prices take part.")]
Sample = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, show_default=False, help="Compare N users and N videos, drawn anew each time, and not all."
    ),
]
Repair = Annotated[
    bool, typer.Option("--repair", help="Put those who differ into the change log, for the next refresh.")
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed and data give the same model.")]
EmbeddingWorkers = Annotated[int, typer.Option(min=1, max=32, help="Connections that embed side by side.")]

WithUsers = Annotated[
    bool,
    typer.Option("--with-users", help="Publish vectors of users as well; they are personal: keep the place private."),
]

Overrides = dict[str, float] | None
"""What :func:`gate_limits` passes to a verb."""

_LIMITS = {
    "gate_min_recall_at_20": ("min_recall", "Recall@20 must be at least this."),
    "gate_min_ndcg_at_20": ("min_ndcg", "NDCG@20 must be at least this."),
    "gate_over_popularity": ("over_popularity", "Recall@20 must be this many times popularity's."),
    "gate_max_drop": ("max_drop", "Share by which it may be worse than the active version."),
}
"""Setting of the gate → the option that overrides it for one run, and its help."""


def gate_limits(verb: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb the options that override limits of the gate. Its parameter ``overrides`` gets a dict, setting →
    value, of the options that were given."""

    @wraps(verb)
    def with_limits(**given: Any) -> None:
        limits = {setting: given.pop(option) for setting, (option, _) in _LIMITS.items()}
        for setting, limit in limits.items():
            if limit is not None and not math.isfinite(limit):
                option = "--" + _LIMITS[setting][0].replace("_", "-")
                raise typer.BadParameter(f"{limit} is no limit; give a number", param_hint=option)
        verb(**given, overrides={setting: limit for setting, limit in limits.items() if limit is not None})

    signature = inspect.signature(verb, eval_str=True)
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.name != "overrides":
            parameters.append(parameter)
            continue
        for setting, (option, text) in _LIMITS.items():
            shown = typer.Option(show_default=f"the setting {setting}", help=text)
            parameters.append(parameter.replace(name=option, default=None, annotation=Annotated[float | None, shown]))
    # Typer reads a verb's options from here.
    with_limits.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_limits.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_limits
