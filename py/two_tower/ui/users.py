"""One user: the history, and the recommendations of one model or two."""

from __future__ import annotations

from html import escape
from typing import Any
from uuid import UUID

import altair as alt
import psycopg
import streamlit as st

from two_tower.ui import actions, look, queries
from two_tower.ui.look import LIKES, NOPES, mark, number
from two_tower.ui.session import ask, ask_anew, behind, dsn, forget, may, refusal

STATE = st.session_state
NONE = "none"
SHOWN = {"Likes": ("like",), "Nopes": ("nope",), "Skips": ("skip",), "All": ("like", "nope", "skip")}


def page() -> None:
    """Choose a user, compare lists, like videos as the user and see the lists change."""
    look.heading("Users", "A user's history beside the lists of one or two models. Choose user and models on the left.")
    found = ask(queries.situation)
    if not found["videos"]:
        look.nothing("There are no videos yet.", "Import a catalogue first.", "two-tower import catalog catalog.csv")
        return
    # In the sidebar, which is closed on a small screen, so that a list is the first thing to see there, too.
    with st.sidebar:
        user, wanted = _choose_user()
        versions = ask(queries.versions)
        limit, known, model_a, model_b = _choose_lists(versions)
    if user is None:
        _nobody(wanted)
        return
    if not versions:
        look.nothing(
            "No model has vectors yet, so all users get popular videos.",
            "Train one on the decisions and activate it.",
            "two-tower train && two-tower model activate",
        )
    taste = ask(queries.taste, user)
    _about(user, taste, model_a)
    _tell()
    acting = may("decide")
    if acting:
        # Said once: a help at each of a hundred buttons is as many elements more for the browser.
        st.caption("Like, Nope and Undo act as this user. Why shows what each decision adds to the score.")
    else:
        st.caption(refusal("like videos as a user", "a login that may switch to the role authenticated"))
    lists = {"A": model_a} | ({"B": model_b} if model_b else {})
    asked = {at: (user, version, limit, known) for at, version in lists.items()}
    answers = {at: ask(queries.recommendations, *arguments) for at, arguments in asked.items()}
    columns = st.columns(1 + len(lists), gap="medium")
    liked = {tag["name"] for tag in taste["tags"]}
    with columns[0]:
        _history(user, limit, acting, liked)
        if acting and taste["likes"]:
            # The URL that the demo prints at its end requests it, once.
            told_to = st.query_params.get("replay") == "true" and not STATE.get("replayed")
            if st.button("Replay the first likes", help="How the list changed with each like.") or told_to:
                STATE.replayed = True
                _replay(user)
    for column, (at, version) in zip(columns[1:], lists.items(), strict=True):
        others = [other for name, other in answers.items() if name != at]
        with column:
            _list(at, version, user, answers[at], others[0] if others else None, acting, liked)
            behind(queries.recommendations, *asked[at])


def _choose_user() -> tuple[UUID | None, str]:
    """The chosen user, and the search text."""
    wanted = st.text_input(
        "Find a user",
        placeholder="id, start of an id, or imported id",
        help="If this is empty, the users with the most likes are listed.",
        key="find",
        bind="query-params",
    )
    found = ask(queries.find_users, wanted)
    counts = {row["user_id"]: row for row in found}
    chosen: UUID | None = None
    if found:
        chosen = st.selectbox(
            "User",
            list(counts),
            format_func=lambda id_: (
                f"{id_} · {number(counts[id_]['likes'])} likes, {number(counts[id_]['nopes'])} nopes"
            ),
            key="user",
            persist_state="session",
        )
    st.button("Random user", on_click=_by_chance, width="stretch")
    return chosen, wanted


def _nobody(wanted: str) -> None:
    if wanted:
        st.info(f"There is no user {look.plain(wanted)}.")
    else:
        look.nothing(
            "There are no decisions yet.",
            "Import decisions, or find a user of yours by id on the left.",
            "two-tower import decisions decisions.csv --create-users",
        )


def _by_chance() -> None:
    somebody = ask_anew(queries.random_user)
    if somebody:
        STATE.find = str(somebody)


def _choose_lists(versions: list[dict[str, Any]]) -> tuple[int, bool, str | None, str | None]:
    states = {row["version"]: row["state"] for row in versions}
    a: str | None = st.selectbox(
        "Model A",
        list(states),
        format_func=lambda v: f"{v} ({states[v]})",
        key="model_a",
        placeholder="no model yet",
        persist_state="session",
    )
    others = [version for version in states if version != a]
    b: str = st.selectbox(
        "Model B",
        [NONE, *others],
        format_func=lambda v: v if v == NONE else f"{v} ({states[v]})",
        key="model_b",
        persist_state="session",
    )
    limit: int = st.selectbox("Length", [10, 20, 50], index=1, key="length", persist_state="session")
    known = st.toggle(
        "Include known videos",
        key="known",
        persist_state="session",
        help="Also list the videos that the user has decided on.",
    )
    return limit, known, a, None if b == NONE else b


def _about(user: UUID, taste: dict[str, Any], version: str | None) -> None:
    parts = [f"{number(taste[kind])} {kind}" for kind in ("likes", "nopes", "skips")]
    if taste["last_at"]:
        parts.append(f"last decision {taste['last_at']:%Y-%m-%d %H:%M}")
    if taste["pending"]:
        parts.append("a change waits for the next refresh")
    if version and version not in taste["versions"]:
        parts.append(f"no vector of {look.plain(version)}, so the list shows popular videos")
    st.markdown(f"`{user}` &nbsp; " + " · ".join(parts))
    if taste["tags"]:
        chips = "".join(
            f'<span class="tt-chip known">{escape(tag["name"])} {tag["likes"]}</span>' for tag in taste["tags"]
        )
        st.html(f'<div class="tt-chips" data-testid="taste">{chips}</div>')


def _tell() -> None:
    """Show the outcome of the last click, once."""
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
        st.caption("No decisions of this kind.")
    pictures = look.pictures_of(found)
    with st.container(key="history", gap="small"):
        for video in found:
            note = f"{mark(video['decision'], video['decision'])} {video['created_at']:%Y-%m-%d}"
            with _card_row(f"history-{video['video_id']}"):
                st.html(look.card(video, note, known=liked, pictures=pictures))
                if acting:
                    _button("Undo", user, video["video_id"], None, "history")
    behind(queries.history, user, SHOWN[shown or "All"], limit)


def _list(
    at: str,
    version: str | None,
    user: UUID,
    found: list[dict[str, Any]],
    other: list[dict[str, Any]] | None,
    acting: bool,
    liked: set[str],
) -> None:
    st.subheader(f"Model {at}: {look.plain(version)}" if version else "Popular videos", anchor=False)
    places = {video["video_id"]: video["rank"] for video in other} if other is not None else {}
    before: dict[UUID, int] | None = STATE.get("before", {}).get((user, version))
    if other is None:
        st.caption(f"{len(found)} videos")
    else:
        both = sum(video["video_id"] in places for video in found)
        st.caption(f"{len(found)} videos, {both} of them in the other list")
    STATE.setdefault("ranks", {})[user, version] = {video["video_id"]: video["rank"] for video in found}
    pictures = look.pictures_of(found)
    with st.container(key=f"list-{at}", gap="small"):
        for video in found:
            with _card_row(f"{at}-{video['video_id']}"):
                note = _note(video, places, other is not None, before)
                st.html(look.card(video, note, video["rank"], liked, pictures))
                with st.container(width="content", gap=None):
                    if acting:
                        _button("Like", user, video["video_id"], "like", at)
                        _button("Nope", user, video["video_id"], "nope", at)
                    if video["reason"] == "taste" and version is not None:
                        key = f"why-{at}-{video['video_id']}"
                        if st.button("Why", key=key, type="tertiary"):
                            _why(user, video, version)


@st.dialog("The list after each like", width="large")
def _replay(user: UUID) -> None:
    """The list without a history, and after each of the first likes, with new videos marked."""
    try:
        with st.spinner("Replaying …"):
            steps = actions.replay(dsn(), user)
    except psycopg.Error as error:
        st.error(look.plain(error.diag.message_primary or str(error)))
        return
    st.caption("Computed by the active version as this user, then rolled back.")
    before: set[str] | None = None
    for column, step in zip(st.columns(len(steps)), steps, strict=True):
        titles = [video["title"] or "untitled" for video in step["videos"]]
        new = [before is not None and title not in before for title in titles]
        rows = "".join(
            f'<li class="{"tt-new" if is_new else ""}">{escape(title)}</li>'
            for title, is_new in zip(titles, new, strict=True)
        )
        liked = "No likes yet" if before is None else f"♥ {escape(step['liked'] or 'untitled')}"
        column.html(f'<div class="tt-step"><b>{liked}</b><ol>{rows}</ol></div>')
        before = set(titles)


@st.dialog("Why this video", width="large")
def _why(user: UUID, video: dict[str, Any], version: str) -> None:
    """What each decision of the user adds to the score of a video, or subtracts from it."""
    st.markdown(f"**{look.plain(video['title'] or 'untitled')}** for `{user}`, by {look.plain(version)}")
    found = ask(queries.contributions, user, video["video_id"], version)
    if not found:
        st.caption("This version's score is not a sum over decisions, so it cannot be broken down.")
        return
    values = [{**row, "what": _part(row), "effect": "adds" if row["value"] >= 0 else "subtracts"} for row in found]
    st.caption(f"The score is {sum(row['value'] for row in found):.3f}, the sum of these contributions.")
    colours = {"adds": LIKES, "subtracts": NOPES}
    bars = (
        look.chart(values)
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            x=alt.X("value:Q", title="adds to the score", axis=alt.Axis(tickCount=6)),
            y=alt.Y(
                "what:N", sort=[row["what"] for row in values], title=None, axis=alt.Axis(labelLimit=320, ticks=False)
            ),
            color=look.coloured("effect:N", colours),
            tooltip=[alt.Tooltip("what:N", title="what"), alt.Tooltip("value:Q", format="+.4f")],
        )
        .properties(height=50 + 24 * len(values))
    )
    look.legend(colours)
    look.show(bars, "What each decision adds to the score")
    behind(queries.contributions, user, video["video_id"], version)


def _part(row: dict[str, Any]) -> str:
    """The source of one part of a score. Places distinguish videos with the same title."""
    if row["kind"] == "everybody":
        return "the same for every user"
    if row["kind"] == "profile":
        return "the profile"
    if row["kind"] == "others":
        return f"{number(row['number'])} other decisions"
    return f"{row['place']}. {'liked' if row['kind'] == 'like' else 'noped'} {row['title'] or 'untitled'}"


def _note(video: dict[str, Any], places: dict[UUID, int], compared: bool, before: dict[UUID, int] | None) -> str:
    """The line under a title: score or reason, the user's decision, ranks on the other list and before the change."""
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
    )


def _decide(user: UUID, video: UUID, decision: str | None) -> None:
    """Write the decision, and remember the lists so that moves can be marked."""
    STATE.before = STATE.get("ranks", {})
    STATE.ranks = {}
    try:
        STATE.told = actions.decide(dsn(), user, video, decision)
    except psycopg.Error as error:
        STATE.problem = f"The decision was not saved: {error.diag.message_primary or error}"
    forget()
