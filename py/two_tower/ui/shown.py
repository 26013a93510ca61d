"""What was shown, how it was liked, and two versions side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import altair as alt
import psycopg
import streamlit as st

from two_tower.errors import UserError
from two_tower.server.experiments import verdicts
from two_tower.ui import actions, look, queries
from two_tower.ui.look import ITEMS, LIKES, RECOMMENDED, number, percent
from two_tower.ui.models import progress_bar
from two_tower.ui.session import ask, ask_lately, dsn, forget, may, refusal

WINDOWS = {"week": 7, "month": 30, "all that is kept": 36_500}
COLOURS = (RECOMMENDED, LIKES, ITEMS, "#0f766e", "#7c3aed", "#be123c")
"""Of versions, the control of an experiment and its challenger first."""
STATE = st.session_state


def page() -> None:
    """Impressions, like rates by version and reason, and the experiment."""
    look.heading("Shown", "What users were shown, how they liked it, and which of two versions they like more.")
    done, refused = STATE.get("experiment-done"), STATE.get("experiment-refused")
    if done:
        st.success(look.plain(done))
    if refused:
        st.error(look.plain(refused))
    _experiment(ask_lately(queries.experiment))
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
                    "**No experiment was started yet.** One compares two versions on users, each for its share."
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
    look.table([_line(row) for row in found["versions"]], "What each version showed, and how it was liked")
    if len(found["days"]) > 0:
        _plot(found)


def _controls(running: dict[str, Any] | None) -> None:
    if not may("experiment"):
        st.caption(refusal("start or stop an experiment", "service_role's rights, or the owner's"))
        return
    if running is not None:
        if st.button("Stop …", key="stop-experiment", width="stretch"):
            _confirm_stop(running)
        return
    ready = ask(queries.comparable)
    if ready["active"] is None or not ready["others"]:
        st.caption("It takes two versions with vectors: the one that serves, and another that is backfilled.")
        return
    challenger = str(st.selectbox("Challenger", ready["others"], key=f"challenger-{ready['active']}"))
    share = st.slider("Share of the users, in per cent", 1, 50, 10, key="share")
    if st.button("Start …", key="start-experiment", width="stretch"):
        _confirm_start(ready["active"], challenger, share / 100)


@st.dialog("Start an experiment")
def _confirm_start(control: str, challenger: str, share: float) -> None:
    st.markdown(
        f"**{look.plain(challenger)}** will serve {percent(share, 0)} of the users, "
        f"**{look.plain(control)}** the others."
    )
    st.caption("Until it is stopped, no version can be activated. The challenger's gate is asked first.")
    sure, back = st.columns(2)
    if back.button("Cancel", width="stretch"):
        st.rerun()
    if sure.button("Start", type="primary", width="stretch", key="sure-start"):
        _do(
            lambda: actions.start_experiment(dsn(), control, challenger, share, progress_bar()),
            lambda done: f"{done['challenger']} serves {percent(done['share'], 0)} of the users.",
        )


@st.dialog("Stop the experiment")
def _confirm_stop(running: dict[str, Any]) -> None:
    names = [running["control"], running["challenger"]]
    better = running["better"] or running["control"]
    winner = st.radio("Who serves everybody from now on?", names, index=names.index(better), key="winner")
    st.caption("At once, for all users. The other stands by.")
    sure, back = st.columns(2)
    if back.button("Cancel", width="stretch"):
        st.rerun()
    if sure.button("Stop", type="primary", width="stretch", key="sure-stop"):
        _do(
            lambda: actions.stop_experiment(dsn(), winner),
            lambda done: f"The experiment is over; {done['model_version']} serves everybody.",
        )


def _do(action: Callable[[], dict[str, Any]], told: Callable[[dict[str, Any]], str]) -> None:
    """Do it, and show the page anew with what came of it."""
    STATE["experiment-done"] = STATE["experiment-refused"] = None
    try:
        STATE["experiment-done"] = told(action())
    except UserError as error:
        STATE["experiment-refused"] = error.message
    except psycopg.Error as error:
        STATE["experiment-refused"] = error.diag.message_primary or str(error)
    forget(everything=True)
    st.rerun()


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
    """Like rates from the start to the end of each day, with the intervals that hold at all looks."""
    colours = dict(zip((found["control"], found["challenger"]), COLOURS, strict=False))
    values = [{**row, "day": row["day"].isoformat()} for row in found["days"]]
    base = look.chart(values).encode(
        x=alt.X("day:T", title=None, axis=alt.Axis(format="%d %b", tickCount={"interval": "day", "step": 1})),
        color=look.coloured("model_version:N", colours),
    )
    rate = alt.Y("like_rate:Q", title="liked of what was shown", axis=alt.Axis(format="%", tickCount=5))
    tooltip = [
        alt.Tooltip("day:T", format="%Y-%m-%d"),
        alt.Tooltip("model_version:N", title="version"),
        *(alt.Tooltip(f"like_{end}:Q", format=".2%") for end in ("rate", "low", "high")),
        *(alt.Tooltip(f"{what}:Q", format=",") for what in ("users", "shown")),
    ]
    band = base.mark_area(opacity=0.15).encode(y=alt.Y("like_low:Q", title="liked of what was shown"), y2="like_high:Q")
    line = base.mark_line().encode(y=rate)
    points = base.mark_circle(size=55, opacity=1).encode(y=rate, tooltip=tooltip)
    look.legend(colours)
    look.show(alt.layer(band, line, points).properties(height=240), "Like rates of both versions by day")


# ------------------------------------------------------------------------------------------------- what was shown


def _impressions(days: int) -> None:
    found = ask_lately(queries.impressions_by_day, days)
    if not found:
        look.nothing(
            "Nothing that was shown is known.",
            "Lists count once the application asks for them by next_videos(), or tells log_shown() of them.",
        )
        return
    st.subheader("Impressions", anchor=False)
    versions = sorted({row["model_version"] for row in found})
    colours = {version: COLOURS[at % len(COLOURS)] for at, version in enumerate(versions)}
    chart = (
        look.chart([{**row, "day": row["day"].isoformat()} for row in found])
        .mark_bar()
        .encode(
            x=alt.X("yearmonthdate(day):T", title=None, axis=alt.Axis(format="%d %b")),
            y=alt.Y("shown:Q", title="videos shown", axis=alt.Axis(format="~s", tickCount=5)),
            color=look.coloured("model_version:N", colours),
            tooltip=[
                alt.Tooltip("day:T", format="%Y-%m-%d"),
                alt.Tooltip("model_version:N", title="version"),
                alt.Tooltip("shown:Q", format=","),
                alt.Tooltip("users:Q", format=","),
            ],
        )
        .properties(height=200)
    )
    look.legend(colours)
    look.show(chart, "Videos shown by day and version")
    st.subheader("Liked, by version and reason", anchor=False)
    st.caption("Of the videos that a user was shown, each once: the share that the user liked or noped afterwards.")
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
            for row in ask_lately(queries.rates, days)
        ],
        "Like rates by version and reason",
    )
