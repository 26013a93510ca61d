"""Pictures of videos: posters that are drawn here, and the choice of the catalogue's pictures that the browser loads.

A browser logs an error in its console for every picture whose host does not exist. So the page first resolves host
names, and uses only pictures whose hosts have an address; the poster replaces the others.
"""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from html import escape
from urllib.parse import urlsplit
from uuid import UUID

PATIENCE = 1.0
"""Seconds that one list of videos waits for host names. What is resolved later is used the next time."""
LOOKED_UP_FOR = 600
"""Seconds for which an answer is cached."""
RESERVED = (".example", ".invalid", ".test")
"""Names that never have an address (RFC 2606)."""

_lookups = ThreadPoolExecutor(max_workers=8, thread_name_prefix="host-names")
_asked: dict[str, tuple[float, Future[bool]]] = {}


def address(url: str | None) -> str | None:
    """The address if it is a web address, so that nothing else is opened or loaded."""
    if not url:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return url if parts.scheme in ("http", "https") and parts.hostname else None


def _has_address(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except (OSError, UnicodeError):
        return False


def _lookup(host: str) -> Future[bool]:
    now = time.monotonic()
    at, found = _asked.get(host, (-float("inf"), None))
    if found is None or now - at > LOOKED_UP_FOR:
        found = _lookups.submit(_has_address, host)
        _asked[host] = now, found
    return found


def loadable(urls: Iterable[str | None]) -> set[str]:
    """Those of the addresses whose hosts are known within :data:`PATIENCE` to exist."""
    lookups: dict[str, Future[bool]] = {}
    for url in urls:
        host = str(urlsplit(url).hostname) if url and address(url) else None
        if url and host and not f".{host}".endswith(RESERVED):
            lookups[url] = _lookup(host)
    wait(lookups.values(), timeout=PATIENCE)
    return {url for url, found in lookups.items() if found.done() and found.result()}


# ------------------------------------------------------------------------------------------------- posters


def _hills(tint: str) -> str:
    return f'<path d="M0 90L52 44L86 68L118 36L160 74V90Z" fill="{tint}"/>'


def _towers(tint: str) -> str:
    bars = ((8, 52), (34, 34), (60, 60), (92, 40), (124, 56))
    return "".join(f'<rect x="{x}" y="{y}" width="20" height="{90 - y}" rx="2" fill="{tint}"/>' for x, y in bars)


def _waves(tint: str) -> str:
    return "".join(
        f'<path d="M0 {y}q20-12 40 0t40 0t40 0t40 0V{y + 8}q-20-12-40 0t-40 0t-40 0t-40 0Z" fill="{tint}"/>'
        for y in (54, 68, 82)
    )


def _rings(tint: str) -> str:
    ring = f'<circle cx="122" cy="70" r="{{}}" fill="none" stroke="{tint}" stroke-width="7"/>'
    return "".join(ring.format(r) for r in (16, 34, 52))


def _stripes(tint: str) -> str:
    return "".join(f'<path d="M{x} 90L{x + 60} 0h14L{x + 14} 90Z" fill="{tint}"/>' for x in (-40, 0, 40, 80, 120))


_SCENES = (_hills, _towers, _waves, _rings, _stripes)


def poster(video: UUID, title: str) -> str:
    """A data URL of a poster: a scene and colours derived from the video's id, and the first letters of its title."""
    scene, hue = _SCENES[video.int // 360 % len(_SCENES)], video.int % 360
    other = (hue + 40 + video.int // 7200 % 100) % 360
    sun = 24 + video.int // 720_000 % 112
    letters = escape("".join(word[0] for word in title.split()[:2]) or "–")
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 160 90">'
        f'<defs><linearGradient id="sky" x2="0" y2="1"><stop stop-color="hsl({hue} 38% 34%)"/>'
        f'<stop offset="1" stop-color="hsl({other} 42% 52%)"/></linearGradient></defs>'
        '<rect width="160" height="90" fill="url(#sky)"/>'
        f'<circle cx="{sun}" cy="26" r="13" fill="hsl({other} 60% 78%)" opacity=".55"/>'
        f"{scene(f'hsl({hue} 40% 26%)')}"
        '<text x="80" y="47" dominant-baseline="central" text-anchor="middle" font-family="sans-serif" font-size="32" '
        f'font-weight="700" fill="#fff" stroke="hsl({hue} 40% 20%)" stroke-width="3" paint-order="stroke">'
        f"{letters}</text></svg>"
    )
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
