"""State of the running page: its database, its settings, and cached answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import psycopg
import streamlit as st

from two_tower.errors import UserError
from two_tower.server.connection import resolve_dsn
from two_tower.server.reading import reading
from two_tower.settings import Settings
from two_tower.ui import actions, look, queries

T = TypeVar("T")
STATE = st.session_state

LATELY, AGGREGATES = 10, 300
"""Seconds for which answers, and sums over everything, are cached."""

CATCH_UP_S = 1.0
"""Seconds that a query waits for the replica before the primary answers it."""

_viewers: ContextVar[queries.Viewers | None] = ContextVar("viewers", default=None)
"""The connections of this run of the page. Between runs the page holds none, so a database can be dropped, renamed or
migrated while somebody has the page open."""


@st.cache_resource(show_spinner=False)
def settings() -> Settings:
    """Those of the process, read once: a question takes less time than reading them."""
    return Settings()


@st.cache_resource(show_spinner=False)
def dsn() -> str:
    """The connection string, which the command line put into the environment."""
    return resolve_dsn(settings=settings())


def _answer(name: str, arguments: tuple[Any, ...]) -> tuple[Any, list[str]]:
    """The answer of a query function, and its statements. It comes from the replica if there is one that has everything
    committed by now, including what this page wrote."""

    def answer(connection: queries.Connection) -> tuple[Any, list[str]]:
        with queries.written_down() as statements:
            return getattr(queries, name)(connection, *arguments), statements

    viewers = _viewers.get()
    opened = viewers.viewer if viewers else queries.viewer
    say = logging.getLogger(__name__).warning
    return reading(None, answer, say, opened=opened, patience=CATCH_UP_S, settings=settings())


@st.cache_data(ttl=LATELY, show_spinner=False)
def _now(name: str, arguments: tuple[Any, ...]) -> tuple[Any, list[str]]:
    return _answer(name, arguments)


@st.cache_data(ttl=AGGREGATES, show_spinner="Counting …")
def _lately(name: str, arguments: tuple[Any, ...]) -> tuple[Any, list[str]]:
    return _answer(name, arguments)


def ask_anew(question: Callable[..., T], *arguments: Any) -> T:
    """The current answer of a function of :mod:`queries`."""
    answer: T = _answer(question.__name__, arguments)[0]
    return answer


def ask(question: Callable[..., T], *arguments: Any) -> T:
    """The same, at most ten seconds old."""
    answer: T = _now(question.__name__, arguments)[0]
    return answer


def ask_lately(question: Callable[..., T], *arguments: Any) -> T:
    """The same, at most five minutes old: for sums over all decisions."""
    answer: T = _lately(question.__name__, arguments)[0]
    return answer


def behind(question: Callable[..., Any], *arguments: Any, lately: bool = False) -> None:
    """The SQL of a figure above, to be copied: the statements of :func:`ask`, or with ``lately`` of ask_lately()."""
    statements = (_lately if lately else _now)(question.__name__, arguments)[1]
    with st.popover("SQL", type="tertiary"):
        st.code("\n\n".join(statements), language="sql", wrap_lines=True)


def affordable(what: str, cost: str) -> bool:
    """Whether the user asked for an expensive figure. Until then, shows its cost and a button."""
    key = f"afford-{what}"
    if not STATE.get(key):
        left, right = st.columns([4, 1], vertical_alignment="center")
        left.caption(f"{cost} With so many rows, this may take half a minute.")
        if not right.button("Compute", key=f"count-{what}", width="stretch"):
            return False
        STATE[key] = True
    return True


@contextmanager
def _sharing() -> Iterator[None]:
    if _viewers.get():
        yield
        return
    with queries.Viewers() as viewers:
        token = _viewers.set(viewers)
        try:
            yield
        finally:
            _viewers.reset(token)


@contextmanager
def answered() -> Iterator[None]:
    """Questions asked in this block share one connection. Shows an error, with its remedy, in place of an answer that
    failed."""
    try:
        with _sharing():
            yield
    except UserError as error:
        look.nothing(error.message[:1].upper() + error.message[1:] + ".", "To fix it:", error.hint)
    except psycopg.errors.QueryCanceled:
        st.error("The database took longer than 30 seconds to answer.")
    except psycopg.OperationalError as error:
        look.nothing("The database does not answer.", str(error).strip(), "two-tower doctor")


def forget(everything: bool = False) -> None:
    """Clear cached answers; with ``everything``, also sums over everything."""
    _now.clear()
    if everything:
        _lately.clear()


@st.cache_data(ttl=60, show_spinner=False)
def _abilities(target: str) -> dict[str, bool]:
    return actions.abilities(target)


def may(what: str) -> bool:
    """Whether the login may do it (:func:`actions.abilities`), and the page was not started with ``--read-only``."""
    return not settings().ui_read_only and _abilities(dsn())[what]


def refusal(what: str, role: str) -> str:
    """Why :func:`may` says no."""
    if settings().ui_read_only:
        return f"This page was started with --read-only, so it cannot {what}."
    return f"The login of this page may not {what}: it needs {role}."


def do(page: str, action: Callable[[], dict[str, Any]], outcome: Callable[[dict[str, Any]], str]) -> None:
    """Do it, and reload the page of that name with the outcome."""
    done = refused = None
    try:
        done = outcome(action())
    except UserError as error:
        refused = error.message
    except psycopg.Error as error:
        refused = error.diag.message_primary or str(error)
    STATE[f"told-{page}"] = done, refused
    forget(everything=True)
    st.rerun()


def tell(page: str) -> None:
    """Show the outcome of the last action on this page, until the next one: a reconnecting browser reruns the page."""
    done, refused = STATE.get(f"told-{page}", (None, None))
    if done:
        st.success(look.plain(done))
    if refused:
        st.error(look.plain(refused))
