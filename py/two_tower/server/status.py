"""``two-tower status``: how fresh, complete and healthy the recommender is, for people, scripts and monitors.

The figures and the verdict come from views in the database (``two_tower.status``, ``coverage``, ``jobs``, ``sizes``,
``problems``), so that a monitor with only SQL sees the same. This module shows them.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import psycopg

SHOWN = 8
"""How many tables, and how many users and videos set aside, the terminal shows; JSON has all tables."""

UNITS = ("B", "kB", "MB", "GB", "TB")

Row = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """The contents of the views in one snapshot: for each a list of rows, keyed by column."""

    status: Row
    coverage: list[Row]
    jobs: list[Row]
    set_aside: list[Row]
    sizes: list[Row]
    sample: list[Row]
    problems: list[Row]
    replica: str | None = None
    """State of the replica, if one is named. It guarantees nothing: if the replica cannot answer, the primary does."""

    def as_json(self) -> dict[str, Any]:
        """One object: the columns of ``two_tower.status`` at the top level, the other views by name."""
        rest = {name: getattr(self, name) for name in ("coverage", "jobs", "set_aside", "sizes", "sample", "problems")}
        return {"healthy": not self.problems, **self.status, **rest, "replica": self.replica}


def look(connection: psycopg.Connection[Any], sample: int | None = None, timeout_s: int = 0) -> Report:
    """Read the views in one read-only transaction; with ``sample``, measure that many users of each live version.

    ``connection`` is outside a transaction. A statement may take ``timeout_s`` seconds, without limit if 0. Raises
    psycopg.Error if the database cannot be read.
    """
    import psycopg
    from psycopg.rows import dict_row

    connection.set_read_only(True)
    connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
    with connection.transaction():
        cursor = connection.cursor(row_factory=dict_row)
        cursor.execute("select set_config('statement_timeout', %s, true)", (f"{timeout_s}s",))

        def rows(query: str) -> list[Row]:
            return cursor.execute(query.encode()).fetchall()

        # To find who should have a vector reads all decisions, which is done once here, for coverage.
        coverage = rows(
            """select c.*, array(
                select to_jsonb(p) from two_tower.coverage_problems(
                    c.model_version, c.state, c.backfilled, c.missing_videos, c.missing_users
                ) p
            ) as problems
            from two_tower.coverage c order by c.state = 'active' desc, c.model_version"""
        )
        lacking = [problem for row in coverage for problem in row.pop("problems")]
        (status,) = rows(
            """select active_version, pending_user_changes, pending_video_changes, lag, failed_changes, videos,
                video_vectors, user_vectors, last_refresh, last_error, lag_seconds, vectors_per_second, mixed_versions,
                follows_likes
            from two_tower.status"""
        )
        liking = coverage or rows("select count(*) as liking_users from two_tower.liking_users()")
        status["users_with_likes"] = liking[0]["liking_users"]
        sampled = rows(f"select * from two_tower.sample_models({sample:d})") if sample else []  # noqa: S608 - a number
        lacking += [{name: row[name] for name in ("what", "detail", "remedy")} for row in sampled if not row["kept"]]
        return Report(
            status=status,
            coverage=coverage,
            jobs=rows("select * from two_tower.jobs order by job"),
            set_aside=rows("select * from two_tower.failed_changes order by failed_at desc limit 100"),
            sizes=rows("select * from two_tower.sizes order by table_bytes + index_bytes desc, relation"),
            sample=sampled,
            problems=rows("select * from two_tower.problems where what <> 'coverage'") + lacking,
        )


# ------------------------------------------------------------------------------------------------ output


def command(remedy: str) -> str:
    """A remedy as a command line: SQL statements go to psql."""
    return remedy if remedy.startswith(("two-tower ", "systemctl ")) else f"two-tower psql -- -c {shlex.quote(remedy)}"


def render(report: Report) -> RenderableType:
    """The report for a terminal, with problems at the end."""
    status, now = report.status, datetime.now(UTC)
    pending = status["pending_user_changes"] + status["pending_video_changes"]
    rate = status["vectors_per_second"]
    facts = _table(None, None, None)
    for name, value in (
        ("active model", _active(status)),
        ("lag", f"{status['lag_seconds']:,.0f} s, {pending:,} changes pending"),
        ("throughput", "–" if rate is None else f"{rate:,.0f} vectors/s in the last refreshes"),
        ("mixed versions", f"{status['mixed_versions']:,}"),
        ("set aside", f"{status['failed_changes']:,}"),
        *((("replica", report.replica),) if report.replica else ()),
    ):
        facts.add_row(name, value)

    parts: list[RenderableType] = [facts]
    if report.coverage:
        versions = _table("version", "state", ">coverage", ">videos", ">users")
        for row in report.coverage:
            videos = f"{row['video_vectors']:,} of {row['videos']:,}"
            users = f"{row['user_vectors']:,} of {row['users']:,}"
            versions.add_row(row["model_version"], row["state"], _share(row["share"]), videos, users)
        parts += ["", versions]
    jobs = _table("job", "pg_cron", "last success", "last failure")
    for row in report.jobs:
        scheduled = {True: "scheduled", False: "not scheduled", None: "–"}[row["scheduled"]]
        jobs.add_row(row["job"], scheduled, _ago(row["last_success"], now), _ago(row["last_failure"], now))
    parts += ["", jobs]
    if report.sample:
        sample = _table("sample", "version", ">value", ">limit")
        for row in report.sample:
            sample.add_row(row["what"], row["model_version"], f"{row['value']:.4g}", f"{row['limit']:.4g}")
        parts += ["", sample]
    sizes = _table("table", ">rows", ">table", ">indexes")
    for row in report.sizes[:SHOWN]:
        sizes.add_row(
            row["relation"], f"{row['rows_estimate']:,}", _bytes(row["table_bytes"]), _bytes(row["index_bytes"])
        )
    rest = report.sizes[SHOWN:]
    sizes.add_row(
        f"{len(rest)} others",
        f"{sum(row['rows_estimate'] for row in rest):,}",
        _bytes(sum(row["table_bytes"] for row in rest)),
        _bytes(sum(row["index_bytes"] for row in rest)),
    )
    parts += ["", sizes]
    if report.set_aside:
        parts.append("")
        for row in report.set_aside[:SHOWN]:
            wait = max(row["retry_at"] - now, timedelta())
            parts.append(
                Text(
                    f"set aside: {row['kind']} {row['id']}, {row['attempts']} attempts, next in {_span(wait)}: "
                    f"{row['error'].splitlines()[0]}"
                )
            )
        if status["failed_changes"] > SHOWN:
            parts.append(Text(f"… and {status['failed_changes'] - SHOWN:,} more in two_tower.failed_changes"))
    parts.append("")
    for row in report.problems:
        line = Text.assemble((row["what"], "bold red"), f": {row['detail']} → ", (command(row["remedy"]), "bold"))
        parts.append(line)
    if not report.problems:
        parts.append(Text("all is well", "green"))
    return Group(*parts)


def _active(status: Row) -> str:
    version: str | None = status["active_version"]
    if version is None:
        return "none"
    return version if status["follows_likes"] else f"{version}, of given vectors: it does not follow likes"


def _table(*headings: str | None) -> Table:
    """A table without lines; headings that begin with ``>`` are of columns of numbers."""
    table = Table(box=None, show_header=headings[0] is not None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading in headings:
        text = heading or ""
        table.add_column(text.lstrip(">"), justify="right" if text.startswith(">") else "left", no_wrap=True)
    return table


def _share(share: float) -> str:
    """A percentage, never rounded up to 100 %."""
    return "100 %" if share == 1 else f"{min(share, 0.9999):.2%}".replace("%", " %")


def _span(span: timedelta) -> str:
    seconds = span.total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _ago(moment: datetime | None, now: datetime) -> str:
    return "–" if moment is None else f"{_span(max(now - moment, timedelta()))} ago"


def _bytes(count: float) -> str:
    unit = 0
    while count >= 1024 and unit < len(UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.1f} {UNITS[unit]}" if unit > 0 and count < 10 else f"{count:.0f} {UNITS[unit]}"
