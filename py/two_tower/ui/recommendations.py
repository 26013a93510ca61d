"""What a model recommends overall: its reach, variety and popularity bias, and how it compares with the data."""

from __future__ import annotations

import altair as alt
import streamlit as st

from two_tower.ui import look, queries
from two_tower.ui.look import number, percent
from two_tower.ui.session import answered, ask, ask_lately, behind

SERIES = tuple(look.SERIES)
COLOURS = {name: look.SERIES[name] for name in SERIES[1:]}
LENGTH = 20


def page() -> None:
    """Reach, variety, popularity and attributes of the lists of a sample of users."""
    look.heading("Recommendations", "What a model recommends overall, compared with the catalogue and with likes.")
    versions = ask(queries.versions)
    if not versions:
        look.nothing(
            "No model has vectors yet.",
            "Train one on the decisions and activate it.",
            "two-tower train && two-tower model activate",
        )
        return
    states = {row["version"]: row["state"] for row in versions}
    left, right, _ = st.columns([3, 2, 3])
    version: str = left.selectbox("Model", list(states), format_func=lambda v: f"{v} ({states[v]})", key="model")
    users: int = right.selectbox(
        "Sample of users", [50, 100, 200, 500, 1000], key="sample", help="The same users each time."
    )
    found = ask_lately(queries.sample, version, users, LENGTH)
    reached = ask_lately(queries.reach, version)
    if not found:
        look.nothing(
            f"{version} has no vectors of users yet.",
            "Users with likes get one at the next refresh.",
            "two-tower refresh",
        )
        return
    asked, shown = found[0]["users"], sum(row["times"] for row in found)
    cells = st.columns(4)
    cells[0].metric(
        "Users reached",
        percent(min(1.0, reached["reached"] / reached["users"]) if reached["users"] else None),
        help=f"{number(reached['reached'])} vectors for {number(reached['users'])} users with likes",
    )
    cells[1].metric(
        "Distinct videos",
        number(len(found)),
        help=f"In {number(asked)} lists with {number(shown)} places; {number(reached['published'])} are published.",
    )
    cells[2].metric(
        "Share of the catalogue",
        percent(len(found) / reached["published"] if reached["published"] else None),
        help="Distinct videos in these lists, of all published ones. It grows with the number of lists.",
    )
    top = sum(row["times"] for row in found[:10])
    cells[3].metric(
        "Share of the top ten",
        percent(top / shown),
        help="Of all places, those of the ten most recommended videos.",
    )
    st.caption(f"Lists of {LENGTH} videos for {number(asked)} users, without those that they have decided on.")
    behind(queries.sample, version, users, LENGTH, lately=True)
    videos, times = tuple(row["video_id"] for row in found), tuple(row["times"] for row in found)
    _popularity(videos, times)
    places = [(row["video_id"], reader) for row in found for reader in row["readers"]]
    _attributes(videos, times, tuple(video for video, _ in places), tuple(reader for _, reader in places), asked)


def _popularity(videos: tuple[object, ...], times: tuple[int, ...]) -> None:
    st.subheader("Popularity", anchor=False)
    found = ask_lately(queries.by_popularity, videos, times)
    st.caption(
        "Published videos in ten groups of equal size, the most liked first. If the bar of recommendations is higher, "
        "the model favours that group more than users do."
    )
    values = [{"band": row["band"], "series": name, "share": row[name]} for row in found for name in SERIES[1:]]
    bars = (
        look.chart(values)
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            x=alt.X(
                "band:O",
                title="tenth of the catalogue, the most liked first",
                axis=alt.Axis(labelAngle=0),
            ),
            xOffset=alt.XOffset("series:N", sort=list(SERIES[1:])),
            y=alt.Y("share:Q", title="share", axis=alt.Axis(format="%", tickCount=5)),
            color=look.coloured("series:N", COLOURS),
            tooltip=["band:O", alt.Tooltip("series:N", title="of"), alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(height=260)
    )
    look.legend(COLOURS)
    look.show(bars, "Shares of likes and of recommendations by popularity of the video")
    behind(queries.by_popularity, videos, times, lately=True)


@st.fragment
@answered()
def _attributes(
    videos: tuple[object, ...],
    times: tuple[int, ...],
    placed: tuple[object, ...],
    readers: tuple[int, ...],
    asked: int,
) -> None:
    st.subheader("Attributes compared with the data", anchor=False)
    kind = st.segmented_control(
        "Attribute", queries.KINDS, default="tag", key="recommended_kind", required=True, label_visibility="collapsed"
    )
    found = ask_lately(queries.against_data, kind, videos, times)
    if not found:
        st.caption(f"No video has a {kind}.")
        return
    st.caption(
        "If the orange dot is right of the blue one, the model recommends the value more often than users like it."
    )
    look.legend(look.SERIES)
    look.show(
        look.shares(found, SERIES, "share with the value"),
        f"Shares of items, likes and recommendations by {kind}",
    )
    behind(queries.against_data, kind, videos, times, lately=True)
    reached = [
        {
            "value": row["value"],
            "users reached": row["users"],
            "of the users": row["users"] / asked,
            "places": row["places"],
            "distinct videos": row["videos"],
        }
        for row in ask_lately(queries.reached, kind, placed, readers)
    ]
    look.table(
        reached,
        f"Users reached, places and distinct videos by {kind}",
        **{"of the users": st.column_config.NumberColumn(format="percent")},
    )
    behind(queries.reached, kind, placed, readers, lately=True)
