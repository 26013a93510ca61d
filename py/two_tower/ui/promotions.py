"""Promotions: videos that an operator puts higher or lower in lists, or at a fixed rank."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import streamlit as st

from two_tower.ui import actions, look, queries
from two_tower.ui.actions import Promotion
from two_tower.ui.session import ask, behind, do, dsn, may, refusal

KINDS = {"boost": "moves up", "bury": "moves down", "pin": "fixed rank"}
ONE, MANY = "one video", "all videos that match a filter"


def section() -> None:
    """Current, planned and ended promotions, with buttons to add one and to end one."""
    st.subheader("Promotions", anchor=False)
    found = ask(queries.promotions)
    if found:
        look.table(
            [
                {
                    "state": row["state"],
                    "what": told(row),
                    "for": _filter(row["segment"]) or "all users",
                    "from": row["starts_at"],
                    "until": row["ends_at"],
                    "note": row["note"],
                }
                for row in found
            ],
            "Promotions and what they do",
            **{"what": st.column_config.TextColumn(width="large"), "from": look.moment(), "until": look.moment()},
        )
    else:
        st.caption("None. Lists are in the order of the model.")
    behind(queries.promotions)
    if not may("promote"):
        st.caption(refusal("add or end a promotion", "the rights of service_role or of the owner"))
        return
    left, right = st.columns(2, vertical_alignment="bottom")
    if left.button("Add …", key="add-promotion", width="stretch"):
        _add()
    going = {row["id"]: row for row in found if row["state"] != "ended"}
    if going:
        with right:
            number: int = st.selectbox(
                "Promotion to end", list(going), format_func=lambda id_: f"{id_}: {told(going[id_])}", key="promotion"
            )
            if st.button("End …", key="end-promotion", width="stretch"):
                _end(going[number])


def told(row: dict[str, Any]) -> str:
    """A short description of a promotion."""
    what = f"videos with {_filter(row['videos'])}" if row["videos"] else str(row["title"] or row["video_id"])
    if row["kind"] == "pin":
        return f"pin at rank {row['rank']}: {what}"
    return f"{row['kind']} by {row['strength']:g}: {what}"


def _filter(filter_: dict[str, Any] | None) -> str:
    return json.dumps(filter_, ensure_ascii=False) if filter_ else ""


@st.dialog("Add a promotion")
def _add() -> None:
    kind: str = st.radio("What", list(KINDS), format_func=lambda k: f"{k}: {KINDS[k]}", horizontal=True, key="kind-of")
    which = ONE
    if kind != "pin":
        which = st.radio("Which videos", [ONE, MANY], horizontal=True, key="which")
    problems: list[str] = []
    video, videos = None, None
    if which == ONE:
        name = st.text_input("Video", placeholder="id or product URL", key="promoted")
        video = ask(queries.video_named, name) if name.strip() else None
        if video:
            st.caption(look.plain(video["title"] or "untitled"))
        elif name.strip():
            problems.append("There is no video with this id or product URL.")
    else:
        videos = _read("Filter", 'filters of lists as JSON, such as {"makers": ["Nova"]}', problems)
    strength: float | None = None
    rank: int | None = None
    if kind == "pin":
        rank = int(st.number_input("Rank", 1, 200, 1, key="pinned-at"))
    else:
        strength = st.number_input("Factor that divides or multiplies ranks", 1.1, 10.0, 2.0, step=0.5, key="strength")
    segment = _read("For whom", 'all users, or those who like {"makers": ["Nova"]}', problems)
    until: date | None = st.date_input("Last day (UTC)", value=None, key="promoted-until")
    note = st.text_input("Note", key="promotion-note")
    for problem in problems:
        st.error(look.plain(problem))
    sure, back = st.columns(2)
    if back.button("Cancel", width="stretch"):
        st.rerun()
    complete = (video or videos) and not problems
    if sure.button("Add", type="primary", width="stretch", key="sure-add", disabled=not complete):
        promotion = Promotion(
            kind=kind,
            video=video["id"] if video else None,
            videos=videos,
            segment=segment,
            strength=strength,
            rank=rank,
            ends_at=datetime.combine(until + timedelta(days=1), time.min, UTC) if until else None,
            note=note.strip() or None,
        )
        do(
            "shown",
            lambda: actions.add_promotion(dsn(), promotion),
            lambda done: f"Promotion {done['id']} is in effect.",
        )


def _read(label: str, wanted: str, problems: list[str]) -> dict[str, Any] | None:
    """A filter from JSON; errors are added to ``problems``."""
    text = st.text_input(label, placeholder=wanted, key=f"filter-{label}").strip()
    if not text:
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        problems.append(f"{label} is not valid JSON: {error}")
        return None
    if not isinstance(found, dict):
        problems.append(f"{label} is not a JSON object.")
        return None
    return found


@st.dialog("End a promotion")
def _end(row: dict[str, Any]) -> None:
    st.markdown(f"**{look.plain(told(row))}**")
    st.caption("It ends at once." if row["state"] == "current" else "It has not begun, and is deleted.")
    sure, back = st.columns(2)
    if back.button("Cancel", width="stretch"):
        st.rerun()
    if sure.button("End", type="primary", width="stretch", key="sure-end"):
        do("shown", lambda: actions.end_promotion(dsn(), row["id"]), lambda done: f"Promotion {done['id']} has ended.")
