"""Retries of requests to a bucket after temporary errors, respecting its Retry-After.

The S3 client neither respects nor exposes a Retry-After header, so after a refusal a signed HEAD request reads it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 300.0
"""Seconds after which a temporary error counts as an outage."""
LONGEST_WAIT = 120.0
FIRST_WAIT = 0.5
_PASSING = re.compile(
    r"\b(408|429|500|502|503|504)\b|SlowDown|error sending request|timed? ?out|connection (reset|refused|closed)",
    re.IGNORECASE,
)


def patiently(store: Any, path: str, work: Callable[[], T]) -> T:
    """The result of ``work``, which is about ``path`` of ``store``; retried after temporary errors.

    Before each retry it waits twice as long as before, or as long as the bucket asks. Raises what ``work`` raises for
    other errors, and after :data:`PATIENCE`.
    """
    import obstore.exceptions

    wait, end = FIRST_WAIT, time.monotonic() + PATIENCE
    while True:
        try:
            return work()
        except obstore.exceptions.BaseError as error:
            if not _PASSING.search(str(error)):
                raise
            pause = min(max(wait, asked_to_wait(store, path) or 0), LONGEST_WAIT)
            if time.monotonic() + pause > end:
                raise
        time.sleep(pause)
        wait *= 2


def asked_to_wait(store: Any, path: str) -> float | None:
    """Seconds that the bucket asks clients to wait; None if it does not say, or nothing can be signed."""
    import httpx2
    import obstore

    from two_tower.data.catalogue_api import retry_after

    with suppress(obstore.exceptions.BaseError, httpx2.HTTPError, TypeError, ValueError):
        signed = obstore.sign(store, "HEAD", path, timedelta(minutes=5))
        answer = httpx2.head(signed, timeout=10)
        return retry_after(answer.headers.get("Retry-After", ""))
    return None
