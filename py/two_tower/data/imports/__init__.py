"""Imports catalogues, reviews and decisions from files into the database: one transaction per file, all or nothing.

A file that is too large for that is imported in chunks, one transaction each; the next run resumes an interrupted one.

Batches of the file are checked column by column. Bad rows are rejected, the others copied into a temporary table; then
a few statements merge that table into the target. Rows that are already equal are not written, so a second import of
a file changes nothing and fires no trigger. Rows that a table of the application refuses, by whatever constraint, type
or trigger, are rejected as well: failing statements are retried on halves, down to the row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import psycopg

from two_tower.data.imports.catalog import Catalog
from two_tower.data.imports.decisions import Decisions
from two_tower.data.imports.reviews import Reviews
from two_tower.data.imports.task import Import, ImportOptions, ImportSummary, ReadProgress
from two_tower.data.imports.vectors import Vectors
from two_tower.data.table import Rejects, table_of

__all__ = [
    "ImportOptions",
    "ImportSummary",
    "ReadProgress",
    "import_catalog",
    "import_catalog_rows",
    "import_decisions",
    "import_reviews",
    "import_vectors",
]


def import_catalog(
    conn: psycopg.Connection[Any],
    source: Path | str,
    options: ImportOptions | None = None,
    progress: ReadProgress | None = None,
) -> ImportSummary:
    """Inserts and updates videos, their tags and their performers, by ``product_url``.

    Columns: ``product_url``, ``title``, and any of ``tags``, ``performers``, ``image_urls`` (lists separated by
    ``|``), ``maker``, ``label``, ``series``, ``source``, ``price``, ``duration_seconds``, ``released_at``,
    ``thumbnail_url``, ``description``. Images are skipped if an adopted table has no column for them. Columns that the
    file lacks keep their values; an empty cell clears one. If the catalogue has a product's affiliate link, the file
    may use the address to which the link leads. Raises UserError if the file cannot be imported,
    psycopg.Error if the database refuses; in both cases nothing has changed.
    """
    return Import(conn, source, options, progress).run(Catalog)


def import_reviews(
    conn: psycopg.Connection[Any],
    source: Path | str,
    options: ImportOptions | None = None,
    progress: ReadProgress | None = None,
) -> ImportSummary:
    """Inserts and updates reviews: ``product_url``, ``reviewer_id``, ``stars`` (0 to 5), maybe ``created_at`` or
    ``timestamp``.

    Raises as ``import_catalog``.
    """
    return Import(conn, source, options, progress).run(Reviews)


def import_decisions(
    conn: psycopg.Connection[Any],
    source: Path | str,
    options: ImportOptions | None = None,
    progress: ReadProgress | None = None,
    *,
    create_users: bool = False,
    weight: float | None = None,
) -> ImportSummary:
    """Inserts and updates decisions: ``user_id`` or ``reviewer_id``; ``product_url``, ``video_id`` or ``item_id``;
    ``decision`` (like, nope or dislike, skip) or ``label`` (1, 0); optionally ``created_at`` or ``timestamp``, by
    default now; optionally each one's weight: ``weight`` (0.01 to 10), ``stars`` (5 weigh 1) or ``watched`` (a share of
    1), by default ``weight``, else 1.

    ``create_users`` inserts unknown users into ``auth.users``; otherwise their rows are rejected. Raises as
    ``import_catalog``.
    """
    return Import(conn, source, options, progress).run(Decisions, create_users=create_users, weight=weight)


def import_vectors(
    conn: psycopg.Connection[Any],
    source: Path | str,
    options: ImportOptions | None = None,
    progress: ReadProgress | None = None,
    *,
    encoder: str,
) -> ImportSummary:
    """Inserts and updates vectors of videos from ``encoder``: ``video_id``, ``item_id`` or ``product_url``; ``vector``
    or ``embedding``, a list of up to 2,000 numbers, the same number in each row. Several rows of a video give their
    mean direction; rows beyond the first are among the summary's ``duplicates``. Raises as ``import_catalog``.
    """
    return Import(conn, source, options, progress).run(Vectors, encoder=encoder)


def import_catalog_rows(
    conn: psycopg.Connection[Any], name: str, rows: pl.DataFrame, rejects: Rejects
) -> ImportSummary:
    """Imports ``rows`` as ``import_catalog`` imports those of a file.

    ``rows`` has ``line``, by which a rejected row is reported, and columns of a catalogue; ``tags``, ``performers``
    and ``image_urls`` may be lists. May run inside a transaction of the caller's.
    """
    before = rejects.rows
    summary = Import(conn, table_of(name, rows), None, None, rejects).run(Catalog)
    summary.rejected = rejects.rows - before
    summary.unchanged = len(rows) - summary.rejected - summary.duplicates - summary.inserted - summary.updated
    return summary
