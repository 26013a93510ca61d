"""``two-tower replay``: estimates from logged lists how a version would be liked.

two-tower replay friday
two-tower replay friday --days 7 --json
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from two_tower.cli.console import Dsn, Json, manual, out, print_json, say

app = typer.Typer()


@app.command(
    epilog=manual(
        "two-tower replay friday",
        "two-tower replay friday --days 7 --json",
        exits="0 judged, 1 it failed or nothing can be said, 2 wrong usage",
    )
)
def replay(
    version: Annotated[str, typer.Argument(help="A backfilled version; nobody need have been shown it.")],
    days: Annotated[int, typer.Option(min=1, max=36_500, help="Lists of so many last days are replayed.")] = 30,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Estimate a version's like rate from lists that users were shown, before anybody sees it.

    This needs lists with randomness, logged with propensities below 1, which tell how other
    videos would have been liked, too. Lists with unknown exclusions cannot be used, and
    their number is reported.
    """
    from two_tower.lifecycle.replay import left_out, verdict
    from two_tower.lifecycle.replay import replay as judge
    from two_tower.server.reading import reading

    found = reading(dsn, lambda connection: judge(connection, version, days), say)
    if json:
        print_json(found)
        return
    from rich.table import Table

    shown = f"{found['lists']:,} lists of {found['users']:,} users in {days} days, of which {found['shown_rate']:.2%}"
    out.print(f"{shown} was liked", highlight=False)
    if found["left_out"]:
        out.print(f"left out: {left_out(found['left_out'])}", highlight=False)
    table = Table("version", "like rate", "95 %", "support", "effective answers", box=None, pad_edge=False)
    for row in ({**found}, *([found["incumbent"]] if found["incumbent"] else [])):
        table.add_row(row["version"], *_cells(row))
    out.print(table)
    if found["support"] < 0.8:
        out.print(
            f"the log says nothing of {1 - found['support']:.0%} of what {version} would show: it was never shown",
            highlight=False,
        )
    out.print(verdict(found), highlight=False)


def _cells(row: dict[str, Any]) -> list[str]:
    if row["like_rate"] is None:
        return ["–", "–", f"{row['support']:.0%}", "0"]
    between = "–" if row["low"] is None else f"{max(row['low'], 0):.2%} to {min(row['high'], 1):.2%}"
    return [f"{row['like_rate']:.2%}", between, f"{row['support']:.0%}", f"{row['effective']:,.0f}"]
