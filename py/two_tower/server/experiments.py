"""Results of an experiment on users. The database computes all figures (``sql/66_experiments``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from two_tower.errors import UserError

if TYPE_CHECKING:
    import psycopg
    from rich.console import RenderableType

Row = dict[str, Any]

SIGNIFICANT = 0.05
"""A p-value at or below it says that there is a difference."""

UNLIKELY = 3.5
"""How many standard deviations the split of the users may be from the share before it is remarked on."""


def running(connection: psycopg.Connection[Any]) -> Row | None:
    """The :func:`report` of the running experiment; None if there is none."""
    found = connection.execute("select id from two_tower.experiments where stopped_at is null").fetchone()
    return found and report(connection, found[0])


def report(connection: psycopg.Connection[Any], number: int | None = None) -> Row | None:
    """The experiment of that ``id``, else the latest; None where there was none yet.

    Its columns; ``versions``, control first, each with ``users``, ``shown``, ``likes``, ``nopes``, both rates with
    their intervals, and ``coverage``; ``tests`` by rate, as of the last day, with their ``p_value``; ``days`` and
    ``tests_by_day``, from which both are; ``better``, the version that the like rate says is better, if any;
    ``split``, a remark where users are not split as the share says. Raises UserError for a number that there is not.
    """
    from psycopg.rows import dict_row

    cursor = connection.cursor(row_factory=dict_row)

    def rows(query: str, *values: Any) -> list[Row]:
        return cursor.execute(query.encode(), values).fetchall()

    found = rows(
        "select * from two_tower.experiments where %s::int is null or id = %s order by id desc limit 1", number, number
    )
    if not found:
        if number is not None:
            raise UserError(f"there is no experiment {number}", "`two-tower ab status` shows the latest")
        return None
    experiment = found[0]
    days = rows("select * from two_tower.experiment_days(%s)", experiment["id"])
    by_day = rows("select * from two_tower.experiment_tests(%s)", experiment["id"])
    covered = {
        row.pop("model_version"): row
        for row in rows("select * from two_tower.experiment_coverage(%s)", experiment["id"])
    }
    latest = {row["model_version"]: row for row in days}  # the last of each
    versions = [
        {name: value for name, value in latest[version].items() if name != "day" and not name.endswith("_variance")}
        | {"coverage": covered.get(version)}
        for version in (experiment["control"], experiment["challenger"])
        if version in latest
    ]
    tests = {row["rate"]: {name: value for name, value in row.items() if name != "rate"} for row in by_day}
    return experiment | {
        "versions": versions,
        "tests": tests,
        "days": days,
        "tests_by_day": by_day,
        "better": _better(experiment, tests.get("like")),
        "split": _split(experiment, versions),
    }


def _better(experiment: Row, test: Row | None) -> str | None:
    if test is None or test["p_value"] is None or test["p_value"] > SIGNIFICANT:
        return None
    return str(experiment["challenger"] if test["difference"] > 0 else experiment["control"])


def _split(experiment: Row, versions: list[Row]) -> str | None:
    """A remark if the numbers of users are unlikely under the drawn split: then something other than chance decided."""
    users = {row["model_version"]: row["users"] for row in versions}
    total, share = sum(users.values()), experiment["share"]
    if not total:
        return None
    seen = users.get(experiment["challenger"], 0) / total
    if abs(seen - share) <= UNLIKELY * (share * (1 - share) / total) ** 0.5:
        return None
    return (
        f"{seen:.1%} of the users who were shown anything are of {experiment['challenger']}'s share, which is "
        f"{share:.1%}: that is unlikely to be chance; check that impressions of both versions are logged"
    )


# ------------------------------------------------------------------------------------------------ output


def render(found: Row) -> RenderableType:
    """A report for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    over = f", stopped {found['stopped_at']:%Y-%m-%d %H:%M}" if found["stopped_at"] else ""
    parts: list[RenderableType] = [
        Text(
            f"experiment {found['id']}: {found['control']} against {found['challenger']} for {found['share']:.1%} of "
            f"the users, since {found['started_at']:%Y-%m-%d %H:%M}{over}"
        ),
        "",
    ]
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading in ("version", ">users", ">shown", ">like rate", ">nope rate", ">of the catalogue"):
        table.add_column(heading.lstrip(">"), justify="right" if heading.startswith(">") else "left", no_wrap=True)
    for row in found["versions"]:
        covered = row["coverage"] or {}
        table.add_row(
            row["model_version"],
            f"{row['users']:,}",
            f"{row['shown']:,}",
            _between(row["like_rate"], row["like_low"], row["like_high"]),
            _between(row["nope_rate"], row["nope_low"], row["nope_high"]),
            _between(covered.get("share"), covered.get("low"), covered.get("high")),
        )
    parts += [table, ""]
    parts += [Text(line) for line in verdicts(found)]
    return Group(*parts)


def verdicts(found: Row) -> list[str]:
    """The results of the tests, in sentences."""
    said = []
    for rate, test in found["tests"].items():
        if test["p_value"] is None:
            said.append(f"{rate} rate: too little was shown and decided on for a test")
            continue
        said.append(
            f"{rate} rate of {found['challenger']} less that of {found['control']}: "
            f"{_between(test['difference'], test['low'], test['high'], sign='+')}, p {test['p_value']:.3g}"
        )
    if not found["tests"]:
        said.append("there are no impressions of both versions yet")
    if found["split"]:
        said.append(f"warning: {found['split']}")
    if found["winner"]:
        said.append(f"{found['winner']} was made the winner")
    elif found["better"]:
        said.append(
            f"{found['better']} is liked more; to have it serve everybody: two-tower ab stop --winner {found['better']}"
        )
    elif not found["stopped_at"] and any(test["p_value"] is not None for test in found["tests"].values()):
        said.append("no difference that is more than chance so far")
    return said


def _between(value: float | None, low: float | None, high: float | None, sign: str = "") -> str:
    if value is None:
        return "–"
    shown = f"{value:{sign}.2%}"
    return shown if low is None or high is None else f"{shown} ({low:{sign}.2%} to {high:{sign}.2%})"
