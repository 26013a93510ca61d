"""The script of ``two-tower ui`` that Streamlit runs."""

from __future__ import annotations

import streamlit as st

from two_tower.ui import data, freshness, look, models, recommendations, session, shown, users

PAGES = {
    "Users": users,
    "Data": data,
    "Recommendations": recommendations,
    "Models": models,
    "Shown": shown,
    "Freshness": freshness,
}


def main() -> None:
    """The navigation, and below it one page."""
    look.frame()
    pages = [
        st.Page(module.page, title=title, url_path=title.lower(), default=title == "Users")
        for title, module in PAGES.items()
    ]
    chosen = st.navigation(pages, position="top")
    with session.answered():
        chosen.run()


main()
