"""How things look: cards of videos, charts of one style, and what stands where there is nothing to show.

Text from the database is escaped here, whatever language or markup it has.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID

import altair as alt
import streamlit as st

NAME = "pg-two-tower"
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect x="5" y="9" width="9" height="19" rx="2.5" '
    'fill="#2563eb"/><rect x="18" y="4" width="9" height="24" rx="2.5" fill="#ea580c"/></svg>'
)
LOGO = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 178 32"><rect x="3" y="9" width="8" height="19" rx="2.2" '
    'fill="#2563eb"/><rect x="14" y="4" width="8" height="24" rx="2.2" fill="#ea580c"/><text x="31" y="23" '
    f'font-family="sans-serif" font-size="21" font-weight="650" fill="#1b2430">{NAME}</text></svg>'
)
ITEMS, LIKES, RECOMMENDED = "#94a3b8", "#2563eb", "#ea580c"
"""Colours of the catalogue, of likes and of recommendations, on every page."""
SERIES = {"items": ITEMS, "likes": LIKES, "recommendations": RECOMMENDED}

_CSS = """
<style>
.stMainBlockContainer { padding-top: 4.2rem; padding-bottom: 3rem; max-width: 92rem; }
.tt-card { display: flex; gap: .7rem; align-items: flex-start; min-width: 0; }
.tt-rank { flex: none; width: 1.5rem; padding-top: .1rem; text-align: right; font-weight: 600; opacity: .55;
    font-variant-numeric: tabular-nums; }
.tt-thumb { position: relative; flex: none; width: 5.9rem; height: 3.32rem; border-radius: .4rem; overflow: hidden;
    background-size: cover; }
.tt-thumb img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: cover; background: inherit; }
/* Of pictures that do not load, and of those alone, this covers the browser's sign for that. */
.tt-thumb img::after { content: ""; position: absolute; inset: 0; background: inherit; background-size: cover; }
.tt-images { display: flex; gap: .22rem; margin-top: .25rem; }
.tt-images img { width: 2.6rem; height: 1.5rem; border-radius: .2rem; object-fit: cover; }
.tt-text { min-width: 0; flex: 1; }
.tt-title { font-weight: 600; line-height: 1.25; overflow: hidden; display: -webkit-box; -webkit-line-clamp: 2;
    -webkit-box-orient: vertical; overflow-wrap: anywhere; unicode-bidi: plaintext; }
.tt-title a { color: inherit !important; text-decoration: none; }
.tt-title a:hover { text-decoration: underline; }
.tt-note { font-size: .8rem; opacity: .7; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.tt-cast { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.tt-note b { font-weight: 600; }
.tt-chips { display: flex; flex-wrap: wrap; gap: .22rem; margin-top: .2rem; }
.tt-chip { font-size: .72rem; line-height: 1.35; padding: 0 .42rem; border-radius: 1rem; max-width: 100%;
    overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
    background: color-mix(in srgb, currentColor 8%, transparent); }
.tt-chip.known { background: color-mix(in srgb, #2563eb 16%, transparent); color: #1d4ed8;
    font-weight: 600; }
.tt-mark { display: inline-block; font-size: .7rem; font-weight: 600; line-height: 1.4; padding: 0 .38rem;
    border-radius: .25rem; background: color-mix(in srgb, currentColor 10%, transparent); }
.tt-mark.up { color: #15803d; background: #dcfce7; } .tt-mark.down { color: #b45309; background: #fef3c7; }
.tt-keys { display: flex; flex-wrap: wrap; gap: 1rem; font-size: .82rem; opacity: .85; }
.tt-key i { display: inline-block; width: .62rem; height: .62rem; border-radius: 50%; margin-right: .35rem; }
.tt-mark.like { color: #1d4ed8; background: #dbeafe; } .tt-mark.nope { color: #be123c; background: #ffe4e6; }
div[class*="st-key-cards-"] [data-testid="stHorizontalBlock"], div[class*="st-key-card-"] {
    border-bottom: 1px solid color-mix(in srgb, currentColor 10%, transparent); padding-bottom: .45rem; }
div[class*="st-key-card-"] button { min-height: 1.6rem; padding: 0 .45rem; }
div[class*="st-key-card-"] button p { font-size: .8rem; }
[data-testid="stMetric"] { background: color-mix(in srgb, currentColor 3%, transparent); border-radius: .5rem;
    padding: .6rem .9rem; }
</style>
"""


def frame() -> None:
    """Title, icon and style; once per page. All of it is here, so that nothing is loaded from elsewhere."""
    st.set_page_config(page_title=NAME, page_icon=ICON, layout="wide")
    st.logo(LOGO, size="large")
    st.html(_CSS)


def heading(title: str, text: str) -> None:
    """The title of a page and what it is for."""
    st.title(title, anchor=False)
    st.caption(text)


def nothing(what: str, then: str, command: str | None = None) -> None:
    """What stands where there is nothing to show: what is missing, and how to come by it."""
    with st.container(border=True, key=f"empty-{quote(what, safe='')}"):
        st.markdown(f"**{plain(what)}**")
        st.markdown(plain(then))
        if command:
            st.code(command, language="bash")


def plain(text: str) -> str:
    """Text in which nothing is Markdown."""
    return "".join("\\" + c if c in "\\`*_{}[]()<>#+-.!|$~:" else c for c in text)


def number(value: float | None) -> str:
    """A count, with thin groups of three digits; a dash where there is none."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 1, in per cent."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


# ------------------------------------------------------------------------------------------------- cards of videos


def address(url: str | None) -> str | None:
    """The address if it is one of the web, so that nothing else is opened or loaded."""
    if not url:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return url if parts.scheme in ("http", "https") and parts.netloc else None


def placeholder(video: UUID, title: str) -> str:
    """A data address of a quiet picture: the first letters of the title on a tint that is the video's own."""
    hue = video.int % 360
    letters = escape("".join(word[0] for word in title.split()[:2]) or "–")
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 160 90">'
        f'<rect width="160" height="90" fill="hsl({hue} 22% 86%)"/>'
        f'<path d="M0 90 L60 42 L92 66 L122 38 L160 72 V90 Z" fill="hsl({hue} 20% 79%)"/>'
        f'<text x="80" y="45" dominant-baseline="central" text-anchor="middle" font-family="sans-serif" font-size="26" '
        f'font-weight="600" fill="hsl({hue} 25% 42%)">{letters}</text></svg>'
    )
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


IMAGES = 5
"""Pictures of a video, beside the first, that its card shows."""


def card(video: dict[str, Any], note: str, rank: int | None = None, known: Iterable[str] = ()) -> str:
    """HTML of one video. ``note`` is HTML of the line under the title; tags in ``known`` stand out."""
    title = video["title"] or "untitled"
    link = address(video["product_url"])
    given = video["image_urls"] if isinstance(video["image_urls"], list) else []
    images = [url for each in (video["thumbnail_url"], *given) if isinstance(each, str) and (url := address(each))]
    picture, *more = dict.fromkeys(images) or [None]
    shown = escape(title)
    if link:
        shown = f'<a href="{escape(link)}" target="_blank" rel="noopener noreferrer">{shown}</a>'
    # A picture that does not load leaves the one behind it to be seen.
    image, *others = [
        f'<img src="{escape(url)}" alt="" loading="lazy" referrerpolicy="no-referrer">' if url else ""
        for url in (picture, *more[:IMAGES])
    ]
    chips = "".join(
        f'<span class="tt-chip{" known" if tag in known else ""}">{escape(tag)}</span>' for tag in video["tags"]
    )
    cast = ", ".join(escape(name) for name in [*video["performers"], *([video["maker"]] if video["maker"] else [])])
    place = "" if rank is None else f'<div class="tt-rank">{rank}</div>'
    return (
        f'<div class="tt-card" data-video="{video["video_id"]}">{place}'
        f'<div class="tt-thumb" style="background-image:url({placeholder(video["video_id"], title)})">{image}</div>'
        f'<div class="tt-text"><div class="tt-title" title="{escape(title)}">{shown}</div>'
        f'<div class="tt-note">{note}</div>'
        + (f'<div class="tt-note tt-cast" title="{cast}">{cast}</div>' if cast else "")
        + (f'<div class="tt-chips">{chips}</div>' if chips else "")
        + (f'<div class="tt-images">{"".join(others)}</div>' if others else "")
        + "</div></div>"
    )


def mark(text: str, kind: str = "") -> str:
    """HTML of a word that stands out: ``kind`` is up, down, like or nope."""
    return f'<span class="tt-mark {kind}">{escape(text)}</span>'


# ------------------------------------------------------------------------------------------------- charts


def show(drawn: alt.Chart | alt.LayerChart | alt.FacetChart, described: str) -> None:
    """A chart as wide as there is room, with a description for those who do not see it."""
    st.altair_chart(drawn, width="stretch", alt=described)


def chart(values: Sequence[dict[str, Any]]) -> alt.Chart:
    """A chart of plain rows."""
    return alt.Chart({"values": list(values)})


def coloured(field: str, colours: Mapping[str, str]) -> alt.Color:
    """Colour by a field's value; :func:`legend` says which is which."""
    return alt.Color(field, scale=alt.Scale(domain=list(colours), range=list(colours.values())), legend=None)


def table(rows: Sequence[dict[str, Any]], described: str, **columns: Any) -> None:
    """Rows as they are, as high as they need and no higher than the screen; ``columns`` say how some are formatted."""
    st.dataframe(
        list(rows),
        hide_index=True,
        height="content" if len(rows) <= 12 else 420,
        column_config=columns or None,
        placeholder="–",
        alt=described,
    )


def moment(label: str | None = None) -> Any:
    """How a table shows a time."""
    return st.column_config.DatetimeColumn(label, format="YYYY-MM-DD HH:mm:ss")


def legend(colours: Mapping[str, str]) -> None:
    """What the colours of the charts below it stand for."""
    keys = "".join(
        f'<span class="tt-key"><i style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in colours.items()
    )
    st.html(f'<div class="tt-keys">{keys}</div>')


def shares(found: Sequence[dict[str, Any]], names: Sequence[str], title: str) -> Any:
    """Of each ``value``, the shares called ``names`` as dots on one line: what lies apart differs."""
    order = [row["value"] for row in found]
    points = [{"value": row["value"], "series": name, "share": row[name]} for row in found for name in names]
    base = chart(points).encode(
        y=alt.Y(
            "value:N",
            sort=order,
            title=None,
            axis=alt.Axis(labelLimit=180, labelOverlap=False, ticks=False, domain=False),
        )
    )
    x = alt.X("share:Q", title=title, axis=alt.Axis(format="%", tickCount=6))
    line = base.mark_rule(color="#d5d9df", strokeWidth=2).encode(
        x=alt.X("min(share):Q", title=title), x2="max(share):Q"
    )
    dots = base.mark_circle(size=75, opacity=0.95).encode(
        x=x,
        color=coloured("series:N", {name: SERIES[name] for name in names}),
        tooltip=[alt.Tooltip("value:N"), alt.Tooltip("series:N", title="of"), alt.Tooltip("share:Q", format=".2%")],
    )
    return alt.layer(line, dots).properties(height=70 + 23 * len(order))
