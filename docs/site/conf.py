"""The documentation as a site: ``make site``. Its pages load nothing from the network."""

from importlib import metadata

project = "pg-two-tower"
release = metadata.version(project)
extensions = ["myst_parser", "sphinx_copybutton"]
root_doc = "docs/site/index"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/ja/*.md",
    "docs/reference/*.md",
    "docs/site/index.md",
    "examples/*/README*.md",
    "sql/README.md",
]
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"pg-two-tower {release}"
html_copy_source = False
html_show_copyright = False
html_extra_path = ["top"]  # an index.html that leads to the first page
suppress_warnings = ["misc.highlighting_failure"]  # psql's \gset is no SQL
