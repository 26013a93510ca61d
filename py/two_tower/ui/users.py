"""One user: the history, and beside it what one model recommends, or two."""

from __future__ import annotations

from html import escape
from typing import Any
from uuid import UUID

import psycopg
import streamlit as st

from two_tower.ui import actions, look, queries
from two_tower.ui.look import mark, number
from two_tower.ui.session import ask, ask_anew, dsn, forget, may, refusal

STATE = st.session_state
NONE = "none"
SHOWN = {"Likes": ("like",), "Nopes": ("nope",), "Skips": ("skip",), "All": ("like", "nope", "skip")}


def page() -> None:
    """Choose a user, compare lists, like as the user and see the lists change."""
    look.heading("Users", "What somebody liked, beside what a model recommends for it. Compare two versions by eye.")
    found = ask(queries.situation)
    if not found["videos"]:
        look.nothing("There are no videos yet.", "Import a catalogue first.", "two-tower import catalog catalog.csv")
        return
    user = _choose_user()
    if user is None:
        return
    versions = ask(queries.versions)
    limit, known, model_a, model_b = _choose_lists(versions)
    if not versions:
        look.nothing(
            "No model has vectors yet, so everybody gets what is popular.",
            "Train one on the decisions and activate it.",
            "two-tower train && two-tower model activate",
        )
    taste = ask(queries.taste, user)
    _about(user, taste, model_a)
    _tell()
    acting = may("decide")
    if not acting:
        st.caption(refusal("like on somebody's behalf", "a login that may take the role authenticated"))
    lists = {"A": model_a} | ({"B": model_b} if model_b else {})
    answers = {at: ask(queries.recommendations, user, version, limit, known) for at, version in lists.items()}
    columns = st.columns(1 + len(lists), gap="medium")
    liked = {tag["name"] for tag in taste["tags"]}
    with columns[0]:
        _history(user, limit, acting, liked)
    for column, (at, version) in zip(columns[1:], lists.items(), strict=True):
        others = [other for name, other in answers.items() if name != at]
        with column:
            _list(at, version, user, answers[at], others[0] if others else None, acting, liked)


def _choose_user() -> UUID | None:
    left, right, by_chance = st.columns([2, 3, 1], vertical_alignment="bottom")
    wanted = left.text_input(
        "Find a user",
        placeholder="an id, its first characters, or an imported id",
        help="Without anything here: the users with the most likes.",
        key="find",
        bind="query-params",
    )
    by_chance.button("Somebody else", on_click=_by_chance, width="stretch", help="A user by chance")
    found = ask(queries.find_users, wanted)
    if not found:
        if wanted:
            st.info(f"There is no user {look.plain(wanted)}.")
        else:
            look.nothing(
                "Nobody has decided anything yet.",
                "Import decisions, or find a user of yours by id above.",
                "two-tower import decisions decisions.csv --create-users",
            )
        return None
    counts = {row["user_id"]: row for row in found}
    chosen: UUID | None = right.selectbox(
        "User",
        list(counts),
        format_func=lambda id_: f"{id_} · {number(counts[id_]['likes'])} likes, {number(counts[id_]['nopes'])} nopes",
        key="user",
        persist_state="session",
    )
    return chosen


def _by_chance() -> None:
    somebody = ask_anew(queries.random_user)
    if somebody:
        STATE.find = str(somebody)


def _choose_lists(versions: list[dict[str, Any]]) -> tuple[int, bool, str | None, str | None]:
    first, second, third, fourth = st.columns([3, 3, 1.5, 2.5], vertical_alignment="bottom")
    states = {row["version"]: row["state"] for row in versions}
    a: str | None = first.selectbox(
        "Model A",
        list(states),
        format_func=lambda v: f"{v} ({states[v]})",
        key="model_a",
        placeholder="no model yet",
        persist_state="session",
    )
    others = [version for version in states if version != a]
    b: str = second.selectbox(
        "Model B",
        [NONE, *others],
        format_func=lambda v: v if v == NONE else f"{v} ({states[v]})",
        key="model_b",
        persist_state="session",
    )
    limit: int = third.selectbox("Length", [10, 20, 50], index=1, key="length", persist_state="session")
    known = fourth.toggle(
        "Show what the user knows",
        key="known",
        persist_state="session",
        help="Rank the videos already decided on, too.",
    )
    return limit, known, a, None if b == NONE else b


def _about(user: UUID, taste: dict[str, Any], version: str | None) -> None:
    parts = [f"{number(taste[kind])} {kind}" for kind in ("likes", "nopes", "skips")]
    if taste["last_at"]:
        parts.append(f"last decision {taste['last_at']:%Y-%m-%d %H:%M}")
    if taste["pending"]:
        parts.append("a change waits for the next refresh")
    if version and version not in taste["versions"]:
        parts.append(f"no vector of {look.plain(version)}, so the list is what is popular")
    st.markdown(f"`{user}` &nbsp; " + " · ".join(parts))
    if taste["tags"]:
        chips = "".join(
            f'<span class="tt-chip known">{escape(tag["name"])} {tag["likes"]}</span>' for tag in taste["tags"]
        )
        st.html(f'<div class="tt-chips" data-testid="taste">{chips}</div>')


def _tell() -> None:
    """What came of the last click, once."""
    told = STATE.pop("told", None)
    if told:
        st.toast(look.plain(told), icon=":material/check:")
    problem = STATE.pop("problem", None)
    if problem:
        st.error(look.plain(problem))


def _history(user: UUID, limit: int, acting: bool, liked: set[str]) -> None:
    st.subheader("History", anchor=False)
    shown = st.segmented_control("Show", list(SHOWN), default="Likes", key="shown", label_visibility="collapsed")
    found = ask(queries.history, user, SHOWN[shown or "All"], limit)
    if not found:
        st.caption("Nothing here.")
    with st.container(key="history", gap="small"):
        for video in found:
            note = f"{mark(video['decision'], video['decision'])} {video['created_at']:%Y-%m-%d}"
            with _card_row(f"history-{video['video_id']}"):
                st.html(look.card(video, note, known=liked))
                if acting:
                    _button("Undo", user, video["video_id"], None, "history")


def _list(
    at: str,
    version: str | None,
    user: UUID,
    found: list[dict[str, Any]],
    other: list[dict[str, Any]] | None,
    acting: bool,
    liked: set[str],
) -> None:
    st.subheader(f"Model {at}: {look.plain(version)}" if version else "What is popular", anchor=False)
    places = {video["video_id"]: video["rank"] for video in other} if other is not None else {}
    before: dict[UUID, int] | None = STATE.get("before", {}).get((user, version))
    if other is None:
        st.caption(f"{len(found)} videos")
    else:
        both = sum(video["video_id"] in places for video in found)
        st.caption(f"{len(found)} videos, {both} of them in the other list")
    STATE.setdefault("ranks", {})[user, version] = {video["video_id"]: video["rank"] for video in found}
    with st.container(key=f"list-{at}", gap="small"):
        for video in found:
            with _card_row(f"{at}-{video['video_id']}"):
                st.html(look.card(video, _note(video, places, other is not None, before), video["rank"], liked))
                if acting:
                    with st.container(width="content", gap=None):
                        _button("Like", user, video["video_id"], "like", at)
                        _button("Nope", user, video["video_id"], "nope", at)


def _note(video: dict[str, Any], places: dict[UUID, int], compared: bool, before: dict[UUID, int] | None) -> str:
    """The line under a title: score or reason, the user's decision, the place on the other list and on the last one."""
    taste = video["reason"] == "taste"
    parts = [f"score <b>{video['score']:.3f}</b>" if taste else f"<b>{escape(video['reason'])}</b>"]
    if video["decision"]:
        parts.append(mark(video["decision"], video["decision"]))
    if compared:
        place = places.get(video["video_id"])
        parts.append(f"other list: {place}" if place else "only here")
    if before is not None:
        was = before.get(video["video_id"])
        if was is None:
            parts.append(mark("new", "up"))
        elif was != video["rank"]:
            step = was - video["rank"]
            parts.append(mark(f"{'↑' if step > 0 else '↓'} {abs(step)}", "up" if step > 0 else "down"))
    return " &nbsp;".join(parts)


def _card_row(key: str) -> Any:
    return st.container(horizontal=True, vertical_alignment="center", gap="small", wrap=False, key=f"card-{key}")


def _button(label: str, user: UUID, video: UUID, decision: str | None, where: str) -> None:
    st.button(
        label,
        key=f"{label}-{where}-{video}",
        type="tertiary",
        on_click=_decide,
        args=(user, video, decision),
        help={"Like": "As this user", "Nope": "As this user", "Undo": "Take the decision back, as this user"}[label],
    )


def _decide(user: UUID, video: UUID, decision: str | None) -> None:
    """Write the decision, and remember the lists so that what moves can be marked."""
    STATE.before = STATE.get("ranks", {})
    STATE.ranks = {}
    try:
        STATE.told = actions.decide(dsn(), user, video, decision)
    except psycopg.Error as error:
        STATE.problem = f"That was not written: {error.diag.message_primary or error}"
    forget()
