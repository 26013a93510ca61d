"""Streamlit, with what the page imports. That takes two seconds, which the first visitor would wait for otherwise.

python -m two_tower.ui run app.py …
"""

from __future__ import annotations

import gc
from importlib import import_module

from streamlit.web.cli import main

# Tables and charts are sent as pandas' and pyarrow's; the other modules of the page begin with Streamlit's runtime.
BEFOREHAND = ("altair", "pandas", "pyarrow", "two_tower.ui.actions", "two_tower.ui.look", "two_tower.ui.queries")

if __name__ == "__main__":
    for name in BEFOREHAND:
        import_module(name)
    # Streamlit collects garbage after each run of the page, and would look through all of these modules each time.
    gc.freeze()
    main(prog_name="streamlit")
