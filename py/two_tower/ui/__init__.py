"""``two-tower ui``: a web page about users, data, recommendations, models, what was shown, and freshness.

``app.py`` is the script that Streamlit runs, with a module for each page. ``queries/`` reads, as a role that may only
read; ``actions.py`` writes.
"""
