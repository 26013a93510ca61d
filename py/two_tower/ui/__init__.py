"""``two-tower ui``: a page to look at users, data, recommendations, models, what was shown and freshness, in a browser.

``app.py`` is the script that Streamlit runs, and each page is a module of its own. All that is shown is asked for in
``queries/``, as a role that may only read; all that is done, in ``actions.py``.
"""
