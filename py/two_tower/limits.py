"""Longest texts that fit into an index: PostgreSQL's b-tree takes rows of up to 2,704 bytes."""

LONGEST_NAME = 1_024
"""Bytes in UTF-8 of a tag, performer, maker, label, series or source; Japanese takes three per character."""

LONGEST_ADDRESS = 2_000
"""Bytes in UTF-8 of a product's address."""
