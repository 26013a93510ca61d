"""What was shown, how it was liked, and the comparison of two versions."""

from __future__ import annotations

from typing import Any

import altair as alt
import streamlit as st

from two_tower.server.experiments import verdicts
from two_tower.ui import actions, look, promotions, queries
from two_tower.ui.look import COLOURS, ITEMS, number, percent
from two_tower.ui.models import progress_bar
from two_tower.ui.session import affordable, ask, ask_lately, behind, do, dsn, may, refusal, tell

WINDOWS = {"week": 7, "month": 30, "all": 36_500}
TIMES = 20
"""Factor by which more impressions are counted on request."""


def page() -> None:
    """The experiment, promotions, impressions, and like rates by version, day and reason."""
    look.heading("Shown", "What users were shown, how much of it they liked, and which of two versions they like more.")
    tell("shown")
    began = ask(queries.started)["days"]
    few = ask(queries.shown_days, began) >= began
    if few or affordable("experiment", f"The figures of the experiment come from {number(began)} days of impressions."):
        _experiment(ask_lately(queries.experiment))
    promotions.section()
    window = st.segmented_control("Window", list(WINDOWS), default="month", key="shown-window", required=True)
    _impressions(WINDOWS[window])


# ------------------------------------------------------------------------------------------------- an experiment


def _experiment(found: dict[str, Any] | None) -> None:
    running = found is not None and found["stopped_at"] is None
    st.subheader("Experiment", anchor=False)
    with st.container(border=True, key="experiment"):
        left, right = st.columns([3, 2], vertical_alignment="center", gap="large")
        with left:
            if found is None:
                st.markdown(
                    "**There has been no experiment yet.** An experiment compares two versions; the challenger serves "
                    "a share of the users."
                )
            else:
                since = f"{found['started_at']:%Y-%m-%d %H:%M}"
                over = "" if running else f" It ended {found['stopped_at']:%Y-%m-%d %H:%M}."
                st.markdown(
                    f"**{look.plain(found['challenger'])}** for {percent(found['share'])} of the users, "
                    f"**{look.plain(found['control'])}** for the others, since {since}.{over}"
                )
                for line in verdicts(found):
                    st.caption(look.plain(line))
        with right:
            _controls(found if running else None)
    if found is None:
        return
    look.table([_line(row) for row in found["versions"]], "Like rates, nope rates and coverage by version")
    if len(found["days"]) > 0:
        _plot(found)
    behind(queries.experiment, lately=True)


def _controls(running: dict[str, Any] | None) -> None:
    if not may("experiment"):
        st.caption(refusal("start or stop an experiment", "the rights of service_role or of the owner"))
        return
    if running is not None:
        if st.button("Stop …", key="stop-experiment", width="stretch"):
            _confirm_stop(running)
        return
    ready = ask(queries.comparable)
    if ready["active"] is None or not ready["others"]:
        st.caption("An experiment needs two versions with vectors: the active one, and another that is backfilled.")
        return
    challenger = str(st.selectbox("Challenger", ready["others"], key=f"challenger-{ready['active']}"))
    share = st.slider("Share of the users, in percent", 1, 50, 10, key="share")
    if st.button("Start …", key="start-experiment", width="stretch"):
        _confirm_start(ready["active"], challenger, share / 100)


@st.dialog("Start an experiment")
def _confirm_start(control: str, challenger: str, share: float) -> None:
    st.markdown(
        f"**{look.plain(challenger)}** will serve {percent(share, 0)} of the users, "
        f"**{look.plain(control)}** the others."
    )
    st.caption("The quality gate checks the challenger first. While the experiment runs, no version can be activated.")
    sure, back = st.columns(2)
    if back.button("Cancel", width="stretch"):
        st.rerun()
    if sure.button("Start", type="primary", width="stretch", key="sure-start"):
        do(
            "shown",
            lambda: actions.start_experiment(dsn(), control, challenger, share, progress_bar()),
            lambda done: f"{done['challenger']} serves {percent(done['share'], 0)} of the users.",
        )


@st.dialog("Stop the experiment")
def _confirm_stop(running: dict[str, Any]) -> None:
    names = [running["control"], running["challenger"]]
    better = running["better"] or running["control"]
    winner = st.radio("Which version serves all users from now on?", names, index=names.index(better), key="winner")
    st.caption("This takes effect at once. The other version goes on standby.")
    sure, back = st.columns(2)
    if back.button("Cancel", width="stretch"):
        st.rerun()
    if sure.button("Stop", type="primary", width="stretch", key="sure-stop"):
        do(
            "shown",
            lambda: actions.stop_experiment(dsn(), winner),
            lambda done: f"The experiment is over; {done['model_version']} serves all users.",
        )


def _line(row: dict[str, Any]) -> dict[str, Any]:
    covered = row["coverage"] or {}
    return {
        "version": row["model_version"],
        "users": row["users"],
        "shown": row["shown"],
        "like rate": _between(row["like_rate"], row["like_low"], row["like_high"]),
        "nope rate": _between(row["nope_rate"], row["nope_low"], row["nope_high"]),
        "of the catalogue": _between(covered.get("share"), covered.get("low"), covered.get("high")),
    }


def _between(value: float | None, low: float | None, high: float | None) -> str:
    shown = percent(value)
    return shown if low is None or high is None else f"{shown} ({percent(low)} to {percent(high)})"


def _plot(found: dict[str, Any]) -> None:
    """Like rates from the start to the end of each day, with intervals that are valid at all looks together."""
    colours = dict(zip((found["control"], found["challenger"]), COLOURS, strict=False))
    values = [{**row, "day": row["day"].isoformat()} for row in found["days"]]
    base = look.chart(values).encode(
        x=alt.X("day:T", title=None, axis=alt.Axis(format="%d %b", tickCount={"interval": "day", "step": 1})),
        color=look.coloured("model_version:N", colours),
    )
    rate = alt.Y("like_rate:Q", title="like rate", axis=alt.Axis(format="%", tickCount=5))
    tooltip = [
        alt.Tooltip("day:T", format="%Y-%m-%d"),
        alt.Tooltip("model_version:N", title="version"),
        *(alt.Tooltip(f"like_{end}:Q", format=".2%") for end in ("rate", "low", "high")),
        *(alt.Tooltip(f"{what}:Q", format=",") for what in ("users", "shown")),
    ]
    band = base.mark_area(opacity=0.15).encode(y=alt.Y("like_low:Q", title="like rate"), y2="like_high:Q")
    line = base.mark_line().encode(y=rate)
    points = base.mark_circle(size=55, opacity=1).encode(y=rate, tooltip=tooltip)
    look.legend(colours)
    look.show(alt.layer(band, line, points).properties(height=240), "Like rates of both versions by day")


# ------------------------------------------------------------------------------------------------- impressions


def _impressions(days: int) -> None:
    counted = ask(queries.shown_days, days)
    if counted < days:
        more = max(1, ask(queries.shown_days, days, TIMES))
        if affordable("impressions", f"Only the last {number(counted)} days are counted unless you ask for more."):
            counted = more
    if counted == 0:
        return
    found = ask_lately(queries.impressions_by_day, counted)
    if not found:
        look.nothing(
            "There are no impressions yet.",
            "They are recorded when the application calls next_videos() or log_shown().",
        )
        return
    versions = sorted({row["model_version"] for row in found})
    colours = {version: COLOURS[at % len(COLOURS)] for at, version in enumerate(versions)}
    st.subheader("Impressions", anchor=False)
    look.legend(colours)
    drawn = (
        by_day(found, colours)
        .mark_bar()
        .encode(
            y=alt.Y("shown:Q", title="videos shown", axis=alt.Axis(format="~s", tickCount=5)),
            tooltip=[*ABOUT, alt.Tooltip("shown:Q", format=","), alt.Tooltip("users:Q", format=",")],
        )
    )
    look.show(drawn.properties(height=200), "Videos shown by day and version")
    behind(queries.impressions_by_day, counted, lately=True)
    left, right = st.columns(2, gap="large")
    with left:
        _rates_by_day(counted, colours)
    with right:
        _popular_by_day(counted, colours)
    st.subheader("Like rate by version and reason", anchor=False)
    st.caption("The share of shown videos that users liked or noped afterwards. Each video counts once per user.")
    look.table(
        [
            {
                "version": row["model_version"] or "no version",
                "reason": row["reason"],
                "users": number(row["users"]),
                "shown": number(row["shown"]),
                "like rate": _between(row["like_rate"], row["like_low"], row["like_high"]),
                "nope rate": percent(row["nope_rate"]),
            }
            for row in ask_lately(queries.rates, counted)
        ],
        "Like rates by version and reason",
    )
    behind(queries.rates, counted, lately=True)


ABOUT = [alt.Tooltip("day:T", format="%Y-%m-%d"), alt.Tooltip("model_version:N", title="version")]


def by_day(found: list[dict[str, Any]], colours: dict[str, str]) -> alt.Chart:
    """A chart, still without marks, of rows with ``day`` and ``model_version``."""
    chart: alt.Chart = look.chart([{**row, "day": row["day"].isoformat()} for row in found]).encode(
        x=alt.X("yearmonthdate(day):T", title=None, axis=alt.Axis(format="%d %b", labelOverlap=True)),
        color=look.coloured("model_version:N", colours),
    )
    return chart


def _rates_by_day(days: int, colours: dict[str, str]) -> None:
    st.subheader("Like rate by day", anchor=False)
    st.caption("By the day on which a video was first shown to a user. Rates of the latest days may still rise.")
    drawn = (
        by_day(ask_lately(queries.rates_by_day, days), colours)
        .mark_line(point=True)
        .encode(
            y=alt.Y("like_rate:Q", title="like rate", axis=alt.Axis(format="%", tickCount=5)),
            tooltip=[
                *ABOUT,
                alt.Tooltip("shown:Q", format=","),
                *(alt.Tooltip(f"{what}_rate:Q", title=f"{what} rate", format=".2%") for what in ("like", "nope")),
            ],
        )
    )
    look.show(drawn.properties(height=220), "Like rates by day and version")
    behind(queries.rates_by_day, days, lately=True)


def _popular_by_day(days: int, colours: dict[str, str]) -> None:
    st.subheader("Popularity bias by day", anchor=False)
    st.caption(
        "The share of impressions that go to the most liked tenth of the catalogue. The dashed line is the share of "
        "likes that go to this tenth; above it, lists favour popular videos more than users do."
    )
    found = ask_lately(queries.popular_by_day, days)
    share = alt.Y("share:Q", title="share of the most liked tenth", axis=alt.Axis(format="%", tickCount=5))
    lines = (
        by_day(found, colours)
        .mark_line(point=True)
        .encode(y=share, tooltip=[*ABOUT, alt.Tooltip("share:Q", format=".1%"), alt.Tooltip("liked:Q", format=".1%")])
    )
    likes = (
        by_day(found, colours)
        .mark_line(strokeDash=[4, 4], color=ITEMS)
        .encode(y=alt.Y("liked:Q", title="share of the most liked tenth"), color=alt.value(ITEMS))
    )
    look.show(alt.layer(likes, lines).properties(height=220), "Share of popular videos among what was shown, by day")
    behind(queries.popular_by_day, days, lately=True)
