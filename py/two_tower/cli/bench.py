"""``two-tower bench``: benchmarks, each figure with its baseline from the same run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from two_tower.cli.console import Json, Verbs, bar, manual, out, print_json, say

if TYPE_CHECKING:
    from two_tower.bench.common import Figure

app = typer.Typer(
    name="bench",
    cls=Verbs,
    no_args_is_help=True,
    help="Measure, each figure beside its baseline in the same run. Works in a throwaway server of its own.",
)

Quick = Annotated[bool, typer.Option("--quick", help="A minute's look, at smaller sizes.")]


@app.command(epilog=manual("two-tower bench freshness --quick", "two-tower bench freshness --sizes 10000,100000"))
def freshness(
    quick: Quick = False,
    sizes: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Users among whom 1,000 change; by default 10000,100000,1000000."),
    ] = None,
    decisions: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=100, help="Of each of these users; 10 by default.")
    ] = None,
    json: Json = False,
) -> None:
    """How soon a like is in the vectors, and what that costs the like, the refresh and the connection."""
    from dataclasses import replace

    from two_tower.bench.common import throwaway_server
    from two_tower.bench.freshness import Scale, run

    scale = Scale.quick() if quick else Scale()
    if sizes:
        try:
            numbers = tuple(sorted({int(part) for part in sizes.split(",")}))
        except ValueError:
            raise typer.BadParameter("--sizes takes numbers with commas between: 10000,1000000") from None
        if len(numbers) < 2 or numbers[0] < 1:
            raise typer.BadParameter("--sizes takes at least two numbers of users, of which the first is the baseline")
        scale = replace(scale, sizes=numbers)
    if decisions:
        scale = replace(scale, short_history=decisions)
    if quick:
        say("quick: smaller sizes and fewer rounds; take the ratios as a hint")
    with throwaway_server() as server, bar() as progress:
        figures = told(run(server, scale, progress))
    show(figures, json, "freshness")


@app.command(epilog=manual("two-tower bench serving --quick", "two-tower bench serving --sizes 100000 --json"))
def serving(
    quick: Quick = False,
    sizes: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Videos in the catalogue; by default 100000,1000000.")
    ] = None,
    json: Json = False,
) -> None:
    """Recall, latency and throughput of recommend_videos against the bare index query."""
    from two_tower.bench.common import throwaway_server
    from two_tower.bench.serving import run

    numbers = [30_000] if quick else [100_000, 1_000_000]
    if sizes:
        try:
            numbers = sorted({int(part) for part in sizes.split(",")})
        except ValueError:
            raise typer.BadParameter("--sizes takes numbers with commas between: 100000,1000000") from None
        if numbers[0] < 10_000:
            raise typer.BadParameter("--sizes takes at least 10000 videos")
    if quick:
        say("quick: a smaller catalogue and fewer rounds; take the ratios as a hint")
    with throwaway_server() as server, bar() as progress:
        figures = told(run(server, numbers, 2 if quick else 10, progress))
    show(figures, json, "serving")


@app.command("import", epilog=manual("two-tower bench import --quick", "two-tower bench import --rows 2000000"))
def import_(
    quick: Quick = False,
    rows: Annotated[
        int | None,
        typer.Option(min=1_000, show_default=False, help="Reviews in the file; by default 1000000, quick 500000."),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, show_default=False, help="By default 3, quick 1.")] = None,
    json: Json = False,
) -> None:
    """A reviews CSV into an empty database, and once more, against a bare COPY of the same file."""
    from two_tower.bench.common import throwaway_server
    from two_tower.bench.imports import run

    with throwaway_server() as server, bar() as progress:
        figures = run(server, rows or (500_000 if quick else 1_000_000), rounds or (1 if quick else 3), progress)
    show(figures, json, "import")


@app.command(epilog=manual("two-tower bench lifecycle --quick", "two-tower bench lifecycle --videos 50000"))
def lifecycle(
    quick: Quick = False,
    videos: Annotated[
        int | None, typer.Option(min=500, show_default=False, help="Catalogue; by default 10000 videos, quick 2000.")
    ] = None,
    flips: Annotated[
        int | None, typer.Option(min=2, show_default=False, help="Activations, rollbacks; by default 100, quick 30.")
    ] = None,
    json: Json = False,
) -> None:
    """Eight readers at full speed through activations and rollbacks: what a flip takes, and what it costs them."""
    from dataclasses import replace

    from two_tower.bench.common import throwaway_server
    from two_tower.bench.lifecycle import Scale, run

    scale = Scale.quick() if quick else Scale()
    scale = replace(scale, videos=videos or scale.videos, flips=flips or scale.flips)
    with throwaway_server() as server, bar() as progress:
        figures = run(server, scale, progress)
    show(figures, json, "lifecycle")


@app.command(epilog=manual("two-tower bench catalogue --quick", "two-tower bench catalogue --index-builds"))
def catalogue(
    quick: Quick = False,
    videos: Annotated[
        int | None,
        typer.Option(min=30_000, show_default=False, help="Catalogue; by default 300000 videos, quick 30000."),
    ] = None,
    users: Annotated[
        int | None, typer.Option(min=1_000, show_default=False, help="By default 100000, quick 5000.")
    ] = None,
    index_builds: Annotated[
        bool,
        typer.Option(
            "--index-builds",
            help="Also build the index four times: with memory for all or a quarter of it, alone or with workers.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """A large catalogue, all videos with inputs, from registering a model to refreshes: seconds and megabytes."""
    from dataclasses import replace

    from two_tower.bench.catalogue import Scale, run
    from two_tower.bench.common import throwaway_server

    scale = Scale.quick() if quick else Scale()
    scale = replace(scale, videos=videos or scale.videos, users=users or scale.users, index_builds=index_builds)
    with throwaway_server() as server, bar() as progress:
        figures = run(server, scale, progress)
    show(figures, json, "catalogue")


@app.command(
    epilog=manual(
        "two-tower bench load --quick",
        "two-tower bench load --rates 50,200,800 --seconds 120 --clients 32",
        "two-tower bench load --postgrest --mix list=90,like=10",
    )
)
def load(
    quick: Quick = False,
    rates: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Requests a second, one after the other; by default 25,50,100,200,400."),
    ] = None,
    duration: Annotated[
        int | None,
        typer.Option("--seconds", min=1, show_default=False, help="At each rate; by default 60, quick 8."),
    ] = None,
    clients: Annotated[
        int | None, typer.Option(min=1, show_default=False, help="Connections; by default 16, quick 8.")
    ] = None,
    mix: Annotated[
        str, typer.Option(metavar="NAME=N,...", help="How often each request is made, relative to the others.")
    ] = "list=70,like=25,embed=5",
    postgrest: Annotated[
        bool, typer.Option("--postgrest", help="Through a PostgREST, which must be in PATH, in place of pgbench.")
    ] = False,
    videos: Annotated[
        int | None, typer.Option(min=400, show_default=False, help="Catalogue; by default 30000 videos, quick 3000.")
    ] = None,
    users: Annotated[int | None, typer.Option(min=1, show_default=False, help="By default 20000, quick 2000.")] = None,
    json: Json = False,
) -> None:
    """Latency of an application's lists, likes and embed_user at given rates, and what gives way first.

    Refreshes run meanwhile. Requests are due at random times, and latency counts from the due time.
    `requests_per_s`, `p50_ms` and `p99_ms` are those of the highest rate that the database sustained, with the same
    rate without refreshes as baseline. If it sustained none, the first is 0 and the others are left out.
    """
    from dataclasses import replace

    from two_tower.bench.common import throwaway_server
    from two_tower.bench.load import Scale, run

    scale = Scale.quick() if quick else Scale()
    scale = replace(
        scale,
        rates=scale.rates if rates is None else _rates(rates),
        seconds=duration or scale.seconds,
        clients=clients or scale.clients,
        mix=_mix(mix),
        videos=videos or scale.videos,
        users=users or scale.users,
    )
    with throwaway_server() as server, bar() as progress:
        figures, said = run(server, scale, progress, through_postgrest=postgrest)
    show(figures, json, "load")
    for line in said:
        say(line)


@app.command(
    epilog=manual(
        "two-tower bench training --quick",
        "two-tower bench training",
        "two-tower bench training --users 100000 --videos 110000 --likes 4000000 --json",
    )
)
def training(
    quick: Quick = False,
    users: Annotated[
        int | None, typer.Option(min=100, show_default=False, help="By default 1000000, quick 5000.")
    ] = None,
    videos: Annotated[
        int | None, typer.Option(min=100, show_default=False, help="Catalogue; by default 300000 videos, quick 3000.")
    ] = None,
    likes: Annotated[
        int | None,
        typer.Option(min=1_000, show_default=False, help="About so many; by default 40000000, quick 200000."),
    ] = None,
    json: Json = False,
) -> None:
    """A training on generated data: minutes, peak memory, and quality beside item-kNN and popularity.

    Minutes are those of reading and training, without the evaluation. The full size takes 30 GB of disk
    in the temporary directory, and the better part of two hours.
    """
    from dataclasses import replace

    from two_tower.bench.common import throwaway_server
    from two_tower.bench.training import Scale, run

    scale = Scale.quick() if quick else Scale()
    scale = replace(scale, users=users or scale.users, videos=videos or scale.videos, likes=likes or scale.likes)
    if scale.likes > scale.users * scale.videos // 20:
        raise typer.BadParameter("--likes must be a twentieth of users times videos at most: they are distinct")
    with throwaway_server() as server, bar() as progress:
        figures, said = run(server, scale, progress)
    show(figures, json, "training")
    for line in said:
        say(line)


def _rates(text: str) -> tuple[float, ...]:
    """Of ``--rates``, in order."""
    try:
        rates = sorted({float(part) for part in text.split(",")})
    except ValueError:
        raise typer.BadParameter("--rates takes numbers with commas between: 50,200") from None
    if not 0 < rates[0] <= rates[-1] <= 1_000_000:
        raise typer.BadParameter("--rates takes numbers above 0 and up to 1000000")
    return tuple(rates)


def _mix(text: str) -> dict[str, int]:
    """Of ``--mix``: request -> weight."""
    from two_tower.bench.load import REQUESTS

    form = f"--mix takes {', '.join(REQUESTS)} with whole numbers: list=70,like=25"
    found = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition("=")
        if name not in REQUESTS or name in found or not weight.isdecimal() or len(weight) > 6:
            raise typer.BadParameter(form)
        found[name] = int(weight)
    if not any(found.values()):
        raise typer.BadParameter("--mix takes some number above 0")
    return found


def told(figures: Iterable[Figure]) -> list[Figure]:
    """All figures. Each is printed as soon as it is measured, so that an interrupted run has shown something."""
    found = []
    for figure in figures:
        value, baseline, ratio = _numbers(figure)
        say(f"{figure.figure}: {value} {figure.unit}, baseline {baseline}, ratio {ratio}")
        found.append(figure)
    return found


def show(figures: Sequence[Figure], json: bool, title: str) -> None:
    """Figures as a table, or as JSON."""
    if json:
        print_json([figure.as_dict() for figure in figures])
        return
    table = Table("figure", title=title, title_justify="left")
    for name in ("value", "baseline", "ratio"):
        table.add_column(name, justify="right")
    table.add_column("unit")
    for figure in figures:
        table.add_row(figure.figure, *_numbers(figure), figure.unit)
    out.print(table)


def _numbers(figure: Figure) -> list[str]:
    """Value, baseline and ratio."""
    return ["–" if n is None else _number(n) for n in (figure.value, figure.baseline, figure.ratio)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
