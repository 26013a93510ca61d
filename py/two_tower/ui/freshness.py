"""How far vectors are behind, how fast they are refreshed, and what fails."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import altair as alt
import streamlit as st

from two_tower.ui import look, queries
from two_tower.ui.look import ITEMS, LIKES, NOPES, number, percent
from two_tower.ui.session import affordable, answered, ask, ask_lately, behind

WINDOWS = {"hour": 1, "day": 24, "week": 168, "month": 720}
COLOURS = {"users": LIKES, "videos": ITEMS, "failed": NOPES}
EVERY = 10
"""Seconds between two updates of the page."""


def page() -> None:
    """Lag, coverage, throughput, jobs and failures; updates itself."""
    look.heading("Freshness", f"Whether vectors keep up with decisions. Updated every {EVERY} seconds.")
    window = st.segmented_control("Window", list(WINDOWS), default="day", key="window", required=True)
    _live(window)


@st.fragment(run_every=EVERY)
def _live(window: str) -> None:
    with answered():
        _show(window)


def _show(window: str) -> None:
    found = ask(queries.status)
    _problems()
    cells = st.columns(5)
    waiting = found["pending_user_changes"] + found["pending_video_changes"]
    cells[0].metric("Lag", duration(found["lag"]), help="Age of the oldest change that waits for a refresh.")
    cells[1].metric(
        "Changes waiting",
        number(waiting),
        help=f"{number(found['pending_user_changes'])} of users, {number(found['pending_video_changes'])} of videos",
    )
    cells[2].metric(
        "Users with a vector",
        covered(found["user_vectors"], found["users_with_likes"]),
        help=f"{number(found['user_vectors'])} of {number(found['users_with_likes'])} with likes",
    )
    cells[3].metric(
        "Videos with a vector",
        covered(found["video_vectors"], found["videos"]),
        help=f"{number(found['video_vectors'])} of {number(found['videos'])}",
    )
    cells[4].metric("Set aside", number(found["failed_changes"]), help="Users and videos whose refresh failed.")
    last = found["last_refresh"]
    serving = f"{look.plain(found['active_version'])} is active." if found["active_version"] else "No model is active."
    st.caption(f"{serving} Last refresh: {f'{last:%Y-%m-%d %H:%M:%S}' if last else 'never'}.")
    behind(queries.status)
    _throughput(window)
    _jobs()
    _runs()
    _failures()


def duration(lag: timedelta | None) -> str:
    """A duration in its two largest units; None is no lag."""
    if lag is None:
        return "none"
    seconds = int(lag.total_seconds())
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    parts: list[str] = []
    for name, size in units:
        if seconds >= size or (name == "s" and not parts):
            parts.append(f"{seconds // size} {name}")
            seconds %= size
    return " ".join(parts[:2])


def covered(vectors: int, wanted: int) -> str:
    """The share with a vector, never rounded up to 100 %; a dash if nobody needs one."""
    if not wanted:
        return "–"
    share = min(1.0, vectors / wanted)
    return "100 %" if share == 1 else percent(min(share, 0.999))


def _problems() -> None:
    """Problems. Searching for them reads all decisions; if there are many, only on request."""
    if ask_lately(queries.sampled) < 1:
        if not affordable("problems", "The search for problems reads all decisions."):
            return
        found = ask_lately(queries.problems)
    else:
        found = ask(queries.problems)
    for row in found:
        st.error(f"**{look.plain(row['detail'])}**")
        st.code(row["remedy"], language="bash" if row["remedy"].startswith("two-tower") else "sql")


def _throughput(window: str) -> None:
    st.subheader("Throughput", anchor=False)
    found = ask(queries.throughput, WINDOWS[window])
    if not found:
        st.caption(f"No refresh had anything to do in the last {window}.")
        return
    values = []
    for row in found:
        top = 0
        for series in COLOURS:
            stretch = {"at": row["at"].isoformat(), "until": row["until"].isoformat()}
            values.append({**stretch, "series": series, "number": row[series], "from": top, "to": top + row[series]})
            top += row[series]
    span = [found[0][end].isoformat() for end in ("since", "now")]
    axis = alt.X(
        "at:T",
        title=None,
        scale=alt.Scale(domain=span),
        axis=alt.Axis(format="%H:%M" if WINDOWS[window] <= 24 else "%d %b", tickCount=8),
    )
    chart = (
        look.chart(values)
        .mark_rect()
        .encode(
            x=axis,
            x2="until:T",
            y=alt.Y("from:Q", title="refreshed", axis=alt.Axis(format="~s", tickCount=5)),
            y2="to:Q",
            color=look.coloured("series:N", COLOURS),
            tooltip=[alt.Tooltip("at:T", format="%Y-%m-%d %H:%M"), "series:N", alt.Tooltip("number:Q", format=",")],
        )
        .properties(height=220)
    )
    look.legend(COLOURS)
    look.show(chart, "Users and videos refreshed over time")
    _lag(found, axis)
    counts = {name: sum(row[name] for row in found) for name in ("users", "videos", "vectors", "seconds")}
    busy = counts["vectors"] > 100 and counts["seconds"] > 0
    rate = f", {number(counts['vectors'] / counts['seconds'])} per second" if busy else ""
    st.caption(
        f"Refreshes of the last {window} processed {number(counts['users'])} users and {number(counts['videos'])} "
        f"videos. Vectors written: {number(counts['vectors'])}{rate}."
    )
    behind(queries.throughput, WINDOWS[window])


def _lag(found: list[dict[str, Any]], axis: alt.X) -> None:
    """Age of the oldest change at the start of each refresh."""
    values = [{"at": row["at"].isoformat(), "lag": row["lag"]} for row in found if row["lag"] is not None]
    if not values:
        return
    drawn = (
        look.chart(values)
        .mark_line(point=True, color=LIKES)
        .encode(
            x=axis,
            y=alt.Y("lag:Q", title="longest wait, s", axis=alt.Axis(format="~s", tickCount=4)),
            tooltip=[
                alt.Tooltip("at:T", format="%Y-%m-%d %H:%M"),
                alt.Tooltip("lag:Q", title="seconds", format=",.1f"),
            ],
        )
    )
    look.show(drawn.properties(height=130), "Longest wait for a refresh over time")


def _jobs() -> None:
    st.subheader("Jobs", anchor=False)
    look.table(
        [
            {
                "job": row["job"],
                "schedule": _schedule(row),
                "state": _state(row),
                "last_success": row["last_success"],
                "last_failure": row["last_failure"],
                "last_error": row["last_error"],
            }
            for row in ask(queries.jobs)
        ],
        "Jobs with their last success and last error",
        last_success=look.moment("last success"),
        last_failure=look.moment("last failure"),
        last_error=st.column_config.TextColumn("last error", width="large"),
    )
    behind(queries.jobs)


def _schedule(row: dict[str, Any]) -> str:
    if row["scheduled"] is None:
        return "no pg_cron"
    return str(row["schedule"]) if row["scheduled"] else "not scheduled"


def _state(row: dict[str, Any]) -> str:
    if row["failing"]:
        return "failing"
    return "ok" if row["last_success"] else "never ran"


def _runs() -> None:
    section = look.section("Latest runs")
    if not section.open:
        return
    with section:
        found = ask(queries.runs)
        if not found:
            st.caption("No job has run yet.")
            return
        look.table(
            [{**row, "result": json.dumps(row["result"]) if row["result"] else None} for row in found],
            "Latest runs of jobs",
            started_at=look.moment("started"),
            finished_at=look.moment("finished"),
            result=st.column_config.TextColumn(width="large"),
        )


def _failures() -> None:
    st.subheader("Set aside", anchor=False)
    found = ask(queries.failures)
    if not found:
        st.caption("None. A user or video whose refresh fails is listed here, and retried automatically.")
        return
    look.table(
        [{**row, "id": str(row["id"])} for row in found],
        "Users and videos set aside",
        error=st.column_config.TextColumn(width="large"),
        failed_at=look.moment("failed at"),
        retry_at=look.moment("retry at"),
    )
