"""How long a text may be that an index holds: PostgreSQL's b-tree takes rows of up to 2,704 bytes."""

LONGEST_NAME = 1_024
"""Bytes in UTF-8 of a tag, performer, maker, label, series or source; Japanese takes three a character."""

LONGEST_ADDRESS = 2_000
"""Bytes in UTF-8 of a product's address."""
