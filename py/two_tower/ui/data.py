"""The training data: distributions of attributes over items and likes, and what is missing."""

from __future__ import annotations

from typing import Any

import altair as alt
import streamlit as st

from two_tower.ui import look, queries
from two_tower.ui.look import ITEMS, LIKES, NOPES, number, percent
from two_tower.ui.session import answered, ask, ask_lately, behind

WHO = {"users": LIKES, "videos": ITEMS}
DECISIONS = {"like": LIKES, "nope": NOPES, "skip": ITEMS}


def page() -> None:
    """Totals, distributions, gaps."""
    look.heading(
        "Data", "What models learn from: the catalogue and the decisions. Shares are of all items and of all likes."
    )
    if not ask(queries.situation)["videos"]:
        look.nothing("There are no videos yet.", "Import a catalogue first.", "two-tower import catalog catalog.csv")
        return
    found = ask_lately(queries.totals)
    cells = st.columns(5)
    cells[0].metric("Videos", number(found["videos"]), help=f"{number(found['published'])} of them are published")
    cells[1].metric("Users with decisions", number(found["users"]))
    for cell, kind in zip(cells[2:], ("likes", "nopes", "skips"), strict=True):
        cell.metric(kind.capitalize(), number(found[kind]))
    share = ask_lately(queries.sampled)
    if share < 1:
        st.caption(
            f"Figures are estimates from samples of at least {percent(share)} of each table. If decisions are sampled, "
            "the likes of a video are those counted by the last daily run of two_tower_popularity."
        )
    behind(queries.totals, lately=True)
    if not found["users"]:
        look.nothing(
            "There are no decisions yet.",
            "Likes come from the application, or from a file.",
            "two-tower import decisions decisions.csv --create-users",
        )
    _attributes()
    left, right = st.columns(2, gap="large")
    with left:
        _spread()
    with right:
        _months()
    _missing(found)


@st.fragment
@answered()
def _attributes() -> None:
    st.subheader("Attributes", anchor=False)
    kind = st.segmented_control(
        "Attribute", queries.KINDS, default="tag", key="kind", required=True, label_visibility="collapsed"
    )
    found = ask_lately(queries.attribute, kind)
    if not found:
        st.caption(f"No video has a {kind}.")
        return
    st.caption(
        f"The {len(found)} of {number(found[0]['values'])} values with the most likes. If the blue dot is right of the "
        "grey one, the value has a larger share of likes than of items."
    )
    for row in found:
        row["items"], row["likes"] = row["item_share"], row["like_share"]
    look.legend({name: look.SERIES[name] for name in ("items", "likes")})
    look.show(
        look.shares(found, ("items", "likes"), "share with the value"),
        f"Shares of items and of likes by {kind}",
    )
    behind(queries.attribute, kind, lately=True)


def _spread() -> None:
    st.subheader("Likes per user and per video", anchor=False)
    found = ask_lately(queries.spread)
    if not found:
        st.caption("No likes yet.")
        return
    totals: dict[str, int] = {}
    for row in found:
        totals[row["who"]] = totals.get(row["who"], 0) + row["number"]
    values = [
        {
            "who": row["who"],
            "likes": _band(row["least"]),
            "least": row["least"],
            "number": row["number"],
            "share": row["number"] / totals[row["who"]],
        }
        for row in found
    ]
    order = [_band(least) for least in sorted({row["least"] for row in found})]
    chart = (
        look.chart(values)
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            x=alt.X("likes:N", sort=order, title="likes", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            xOffset=alt.XOffset("who:N"),
            y=alt.Y("share:Q", title="share of users or videos", axis=alt.Axis(format="%", tickCount=5)),
            color=look.coloured("who:N", WHO),
            tooltip=["who:N", "likes:N", alt.Tooltip("number:Q", format=","), alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(height=250)
    )
    look.legend(WHO)
    look.show(chart, "Shares of users and of videos by number of likes")
    behind(queries.spread, lately=True)


def _band(least: int) -> str:
    return str(least) if least < 2 else f"{least}–{2 * least - 1}"


def _months() -> None:
    st.subheader("Decisions by month", anchor=False)
    found = ask_lately(queries.decisions_by_month)
    if not found:
        st.caption("No decisions yet.")
        return
    values = [{**row, "month": row["month"].isoformat()} for row in found]
    chart = (
        look.chart(values)
        .mark_bar()
        .encode(
            x=alt.X("yearmonth(month):T", title=None, axis=alt.Axis(format="%b %Y", labelAngle=0, labelOverlap=True)),
            y=alt.Y("number:Q", title="decisions", axis=alt.Axis(format="~s", tickCount=5)),
            color=look.coloured("decision:N", DECISIONS),
            tooltip=[
                alt.Tooltip("yearmonth(month):T", title="month", format="%B %Y"),
                "decision:N",
                alt.Tooltip("number:Q", format=","),
            ],
        )
        .properties(height=250)
    )
    look.legend(DECISIONS)
    look.show(chart, "Likes, nopes and skips by month")
    behind(queries.decisions_by_month, lately=True)


@st.fragment
@answered()
def _missing(totals: dict[str, Any]) -> None:
    section = look.section("Missing attributes")
    if not section.open:
        return
    with section:
        st.caption("If a video lacks an attribute, likes of it say nothing about the user's taste in that attribute.")
        found = ask_lately(queries.missing)
        left, right = st.columns(2, gap="large")
        with left:
            _shares_missing(found)
        with right:
            _popular_without([row["what"] for row in found if row["items"]])
        without = totals["users"] - _users_with_likes()
        if without > 0:
            share = percent(without / totals["users"])
            st.caption(f"{number(without)} users ({share}) have decisions but no likes.")


def _shares_missing(found: list[dict[str, Any]]) -> None:
    look.table(
        [
            {
                "without": row["what"],
                "videos": row["items"],
                "of all videos": 100 * row["item_share"],
                "of all likes": 100 * row["like_share"],
            }
            for row in found
        ],
        "Videos that lack each attribute",
        **{
            "videos": st.column_config.NumberColumn(format="localized"),
            "of all videos": _bar("gray"),
            "of all likes": _bar("blue"),
        },
    )
    behind(queries.missing, lately=True)


def _popular_without(lacks: list[str]) -> None:
    if not lacks:
        st.caption("Nothing is missing.")
        return
    what = st.selectbox("The most popular videos without", lacks, key="lacks")
    videos = ask_lately(queries.lacking, what, 10)
    look.table(
        [{"title": row["title"] or "untitled", "likes": row["likes"], "address": row["product_url"]} for row in videos],
        f"Videos without {what}",
    )
    behind(queries.lacking, what, 10, lately=True)


def _bar(color: str) -> Any:
    return st.column_config.ProgressColumn(format="%.1f %%", min_value=0, max_value=100, color=color)


def _users_with_likes() -> int:
    found = ask_lately(queries.spread)
    return sum(row["number"] for row in found if row["who"] == "users" and row["least"])
