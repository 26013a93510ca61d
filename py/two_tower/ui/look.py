"""Appearance: cards of videos, charts of one style, and messages for what is empty.

Text from the database is escaped here, whatever language or markup it contains.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

import altair as alt
import streamlit as st

from two_tower.ui.pictures import address, loadable, poster

NAME = "pg-two-tower"
_BOWL = "a4.6 4.6 0 1 1 9.2 0a4.6 4.6 0 1 1-9.2 0"
_LETTERS = (
    f"M32 13.3V28M32 17.9{_BOWL}"  # p
    f"M45 17.9{_BOWL}M54.2 13.3V24.2a4.6 4.2 0 0 1-8.7 1.8"  # g
    "M58.6 18h4.6"  # -
    "M69.2 9.2v10.4a2.9 2.9 0 0 0 2.9 2.9h1M66.6 13.3h6.5"  # t
    "M76 13.3l3.2 9.2l3.2-9.2l3.2 9.2l3.2-9.2"  # w
    f"M92 17.9{_BOWL}"  # o
    "M105 18h4.6"  # -
    "M115.6 9.2v10.4a2.9 2.9 0 0 0 2.9 2.9h1M113 13.3h6.5"  # t
    f"M122.6 17.9{_BOWL}"  # o
    "M135.2 13.3l3.2 9.2l3.2-9.2l3.2 9.2l3.2-9.2"  # w
    "M151.2 17.9h9.2a4.6 4.6 0 1 0-1.6 3.5"  # e
    "M164.4 13.3v9.2M164.4 17.6a4.4 4.4 0 0 1 4.4-4.3"  # r
)
"""The name as strokes, which do not depend on fonts."""
INK = "#64748b"
"""Colour of the name, readable on a light page and on a dark one."""
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect x="5" y="9" width="9" height="19" rx="2.5" '
    'fill="#2563eb"/><rect x="18" y="4" width="9" height="24" rx="2.5" fill="#ea580c"/></svg>'
)
LOGO = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 172 32"><rect x="3" y="9" width="8" height="19" rx="2.2" '
    'fill="#2563eb"/><rect x="14" y="4" width="8" height="24" rx="2.2" fill="#ea580c"/>'
    f'<path d="{_LETTERS}" fill="none" stroke="{INK}" stroke-width="2.3" stroke-linecap="round" '
    'stroke-linejoin="round"/></svg>'
)
ITEMS, LIKES, RECOMMENDED, NOPES = "#7c8aa0", "#2563eb", "#ea580c", "#e11d48"
"""Colours of the catalogue, likes, recommendations and nopes on every page. Each is visible on a light page and on a
dark one."""
TEAL, VIOLET = "#0d9488", "#8b5cf6"
"""Colours of anything else that is compared."""
COLOURS = (RECOMMENDED, LIKES, ITEMS, TEAL, VIOLET, NOPES)
"""Colours of versions that are compared; in an experiment, first the control, then the challenger."""
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
/* Covers the browser's symbol for a picture that did not load; it has no effect on pictures that did. */
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
.tt-chip.known { background: color-mix(in srgb, #2563eb 16%, transparent); color: light-dark(#1d4ed8, #93c5fd);
    font-weight: 600; }
.tt-mark { display: inline-block; font-size: .7rem; font-weight: 600; line-height: 1.4; padding: 0 .38rem;
    border-radius: .25rem; background: color-mix(in srgb, currentColor 10%, transparent); }
.tt-mark.up { color: light-dark(#15803d, #86efac); background: light-dark(#dcfce7, #14532d); }
.tt-mark.down { color: light-dark(#b45309, #fcd34d); background: light-dark(#fef3c7, #713f12); }
.tt-step { font-size: .8rem; } .tt-step ol { padding-left: 1.2rem; } .tt-step li { margin: .25rem 0; }
.tt-new { font-weight: 600; color: light-dark(#15803d, #86efac); }
.tt-keys { display: flex; flex-wrap: wrap; gap: 1rem; font-size: .82rem; opacity: .85; }
.tt-key i { display: inline-block; width: .62rem; height: .62rem; border-radius: 50%; margin-right: .35rem; }
.tt-mark.like { color: light-dark(#1d4ed8, #93c5fd); background: light-dark(#dbeafe, #1e3a8a); }
.tt-mark.nope { color: light-dark(#be123c, #fda4af); background: light-dark(#ffe4e6, #881337); }
div[class*="st-key-cards-"] [data-testid="stHorizontalBlock"], div[class*="st-key-card-"] {
    border-bottom: 1px solid color-mix(in srgb, currentColor 10%, transparent); padding-bottom: .45rem; }
div[class*="st-key-card-"] button { min-height: 1.6rem; padding: 0 .45rem; }
div[class*="st-key-card-"] button p { font-size: .8rem; }
/* The placeholder of a chart or table while the browser loads its library. Its animation would compete for the
   processor with what is loading, most of all where the browser draws in software. */
[data-testid="stSkeleton"] { animation: none !important; }
/* A visible focus for the keyboard. Text boxes and lists show it by their frame. */
.stApp :is(a, button, summary, [role="radio"], [role="switch"], [role="slider"], [tabindex="0"]):focus-visible,
[role="dialog"] :is(a, button, [role="radio"]):focus-visible {
    outline: 2px solid light-dark(#2563eb, #93c5fd) !important; outline-offset: 2px; border-radius: .25rem; }
@media (max-width: 640px) {
    .stMainBlockContainer { padding: 3.6rem .9rem 2rem; }
    .tt-thumb { width: 4.6rem; height: 2.59rem; }
}
[data-testid="stMetric"] { background: color-mix(in srgb, currentColor 3%, transparent); border-radius: .5rem;
    padding: .6rem .9rem; }
</style>
"""


def frame() -> None:
    """Title, icon and style; once per page. They are inline, so that nothing is loaded from elsewhere."""
    st.set_page_config(page_title=NAME, page_icon=ICON, layout="wide")
    st.logo(LOGO, size="large")
    st.html(_CSS)


def heading(title: str, text: str) -> None:
    """The title and the purpose of a page."""
    st.title(title, anchor=False)
    st.caption(text)


def nothing(what: str, then: str, command: str | None = None) -> None:
    """A message in place of empty content: what is missing, and how to get it."""
    with st.container(border=True, key=f"empty-{quote(what, safe='')}"):
        st.markdown(f"**{plain(what)}**")
        st.markdown(plain(then))
        if command:
            st.code(command, language="bash")


def plain(text: str) -> str:
    """The text with Markdown escaped."""
    return "".join("\\" + c if c in "\\`*_{}[]()<>#+-.!|$~:" else c for c in text)


def number(value: float | None) -> str:
    """A count, with thin spaces between groups of three digits; a dash for None."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def percent(share: float | None, digits: int = 1) -> str:
    """A share between 0 and 1 as a percentage."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


# ------------------------------------------------------------------------------------------------- cards of videos


IMAGES = 5
"""Further pictures of a video that its card shows."""


def card(
    video: dict[str, Any], note: str, rank: int | None = None, known: Iterable[str] = (), pictures: Collection[str] = ()
) -> str:
    """HTML of one video. ``note`` is HTML of the line under the title; tags in ``known`` are highlighted. Pictures of
    the video are shown if they are in ``pictures`` (:func:`pictures_of`), the first of them over the poster."""
    title = video["title"] or "untitled"
    link = address(video["product_url"])
    shown = escape(title)
    if link:
        shown = f'<a href="{escape(link)}" target="_blank" rel="noopener noreferrer">{shown}</a>'
    # If a picture does not load, the one behind it is visible.
    image, *others = [
        f'<img src="{escape(url)}" alt="" loading="lazy" referrerpolicy="no-referrer">'
        for url in [url for url in _images(video) if url in pictures][: IMAGES + 1]
    ] or [""]
    chips = "".join(
        f'<span class="tt-chip{" known" if tag in known else ""}">{escape(tag)}</span>' for tag in video["tags"]
    )
    cast = ", ".join(escape(name) for name in [*video["performers"], *([video["maker"]] if video["maker"] else [])])
    place = "" if rank is None else f'<div class="tt-rank">{rank}</div>'
    return (
        f'<div class="tt-card" data-video="{video["video_id"]}">{place}'
        f'<div class="tt-thumb" style="background-image:url({poster(video["video_id"], title)})">{image}</div>'
        f'<div class="tt-text"><div class="tt-title" title="{escape(title)}">{shown}</div>'
        f'<div class="tt-note">{note}</div>'
        + (f'<div class="tt-note tt-cast" title="{cast}">{cast}</div>' if cast else "")
        + (f'<div class="tt-chips">{chips}</div>' if chips else "")
        + (f'<div class="tt-images">{"".join(others)}</div>' if others else "")
        + "</div></div>"
    )


def _images(video: dict[str, Any]) -> list[str]:
    """Addresses of its pictures, each once."""
    given = video["image_urls"] if isinstance(video["image_urls"], list) else []
    found = [url for each in (video["thumbnail_url"], *given) if isinstance(each, str) and (url := address(each))]
    return list(dict.fromkeys(found))


def pictures_of(videos: Iterable[dict[str, Any]]) -> set[str]:
    """The pictures of these videos that the browser should load."""
    return loadable(url for video in videos for url in _images(video)[: IMAGES + 1])


def mark(text: str, kind: str = "") -> str:
    """HTML of a highlighted word: ``kind`` is up, down, like or nope."""
    return f'<span class="tt-mark {kind}">{escape(text)}</span>'


# ------------------------------------------------------------------------------------------------- charts


# That of Altair has widths of its own, where Streamlit's theme fits charts to the page.
alt.theme.enable("none")


def show(drawn: alt.Chart | alt.LayerChart | alt.FacetChart, described: str) -> None:
    """A chart of full width, with a description for screen readers."""
    # st.altair_chart() would validate the whole of it against Vega-Lite's schema, which takes longer than to draw it.
    st.vega_lite_chart(drawn.to_dict(validate=False), width="stretch", alt=described)


def chart(values: Sequence[dict[str, Any]]) -> alt.Chart:
    """A chart of plain rows."""
    return alt.Chart({"values": list(values)})


def coloured(field: str, colours: Mapping[str, str]) -> alt.Color:
    """Colour by a field's value; :func:`legend` shows the meaning."""
    return alt.Color(field, scale=alt.Scale(domain=list(colours), range=list(colours.values())), legend=None)


def table(rows: Sequence[dict[str, Any]], described: str, **columns: Any) -> None:
    """A table of rows, at most as high as the screen; ``columns`` are formats of some columns."""
    st.dataframe(
        list(rows),
        hide_index=True,
        height="content" if len(rows) <= 12 else 420,
        column_config=columns or None,
        placeholder="–",
        alt=described,
    )


def section(title: str) -> Any:
    """A section that is closed at first. What is in it is computed and sent only while ``open`` is true."""
    return st.expander(title, on_change="rerun", key=f"section-{title}")


def moment(label: str | None = None) -> Any:
    """The format of times in a table."""
    return st.column_config.DatetimeColumn(label, format="YYYY-MM-DD HH:mm:ss")


def legend(colours: Mapping[str, str]) -> None:
    """The meaning of the colours of the charts below it."""
    keys = "".join(
        f'<span class="tt-key"><i style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in colours.items()
    )
    st.html(f'<div class="tt-keys">{keys}</div>')


def shares(found: Sequence[dict[str, Any]], names: Sequence[str], title: str) -> Any:
    """A line for each ``value`` with a dot for each share in ``names``: the farther apart, the more they differ."""
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
    line = base.mark_rule(color=ITEMS, opacity=0.4, strokeWidth=2).encode(
        x=alt.X("min(share):Q", title=title), x2="max(share):Q"
    )
    dots = base.mark_circle(size=75, opacity=0.95).encode(
        x=x,
        color=coloured("series:N", {name: SERIES[name] for name in names}),
        tooltip=[alt.Tooltip("value:N"), alt.Tooltip("series:N", title="of"), alt.Tooltip("share:Q", format=".2%")],
    )
    return alt.layer(line, dots).properties(height=70 + 23 * len(order))
