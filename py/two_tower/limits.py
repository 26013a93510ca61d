"""The longest texts that imports take, by column, in bytes of UTF-8; Japanese takes three per character."""

from __future__ import annotations

from collections.abc import Mapping

LONGEST_NAME = 1_024
"""Bytes. Names are in indexes, and PostgreSQL's b-tree takes rows of up to 2,704 bytes."""

LONGEST_ADDRESS = 2_000
"""Bytes. A product's address is in an index, too."""

LONGEST_ID = 256
"""Bytes of the id of a person. Training holds all ids in the width of the longest one."""

LONGEST: Mapping[str, int] = {
    "product_url": LONGEST_ADDRESS,
    # An image may be in the address itself (data:).
    **dict.fromkeys(("thumbnail_url", "image_urls"), 65_536),
    **dict.fromkeys(("tags", "performers", "maker", "label", "series", "source"), LONGEST_NAME),
    **dict.fromkeys(("user_id", "reviewer_id"), LONGEST_ID),
    "title": 4_000,
    "description": 65_536,
}
"""Column of a file → the most bytes of a text in it, or of each one where a cell is a list."""

MOST_LISTED = 1_000
"""Most texts in a cell that is a list: the tags, performers or images of one video."""
