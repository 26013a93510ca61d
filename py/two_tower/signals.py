"""Ending verbs that run until a signal."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType
from typing import Any


@contextmanager
def until_signalled() -> Iterator[Event]:
    """An event that SIGTERM and SIGINT set; only in the main thread. A second signal of a kind has its usual effect.

    Shells start background processes with SIGINT ignored; here it counts even then.
    """
    stop = Event()

    def handle(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[number])

    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
