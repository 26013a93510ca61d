"""Cells of a file to values: prices, durations, moments; and back to text, for the report of rejected rows."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

PRICES = (1e-6, 1e12)
"""What is smaller, save 0, or larger, no sum of prices can hold beside others."""
# In UTC and without zone, as timestamps has them.
_CALENDAR = (datetime(1, 1, 2), datetime(9999, 12, 30))
RELEASES = (datetime(1850, 1, 1), datetime(2200, 1, 1))
FIRST_MOMENT = datetime(1970, 1, 1)


def outside(column: str, first: datetime, last: datetime) -> pl.Expr:
    """Whether a time is there and not from ``first`` to before ``last``."""
    return ~pl.col(column).is_between(first, last, closed="left").fill_null(value=True)


def numbers(cells: pl.Series) -> pl.Series:
    """Finite numbers as Float64, null where a cell holds none."""
    if cells.dtype == pl.String:
        cells = cells.str.strip_chars()
    found = cells.cast(pl.Float64, strict=False)
    return found.set(~found.is_finite().fill_null(value=False), None)


def as_text(cells: pl.Series) -> pl.Series:
    """Cells as text, for the report; of times beyond what a calendar has, the number that the file holds."""
    if isinstance(cells.dtype, pl.List):
        return pl.Series(cells.name, [""], dtype=pl.String).new_from_index(0, len(cells))
    if not isinstance(cells.dtype, pl.Datetime | pl.Date):
        return cells.cast(pl.String)
    per_second = 1 / 86_400
    if isinstance(cells.dtype, pl.Datetime):
        per_second = {"ms": 10**3, "us": 10**6, "ns": 10**9}[cells.dtype.time_unit]
    seconds = cells.to_physical().cast(pl.Float64) / per_second
    first, last = (moment.replace(tzinfo=UTC).timestamp() for moment in _CALENDAR)
    inside = seconds.is_between(first, last).fill_null(value=False)
    return cells.set(~inside, None).cast(pl.String).zip_with(inside, cells.to_physical().cast(pl.String))


_LARGEST_MS = 2**63 // 1_000 - 1
_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f %#z",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d %H:%M%#z",
    "%Y%m%d",
    "%d.%m.%Y",
)


def timestamps(cells: pl.Series) -> pl.Series:
    """Moments in UTC as Datetime('us') without zone; null where a cell holds none, or a year outside 1000 to 9999.

    Text may be ISO 8601 with a space or slashes, with or without a time, zone or fraction; 20250131; 31.01.2025; or
    seconds (10 digits) or milliseconds (13) since 1970. Without a zone it is UTC.
    """
    naive = pl.Datetime("us")
    if isinstance(cells.dtype, pl.Datetime):
        moments = cells.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if cells.dtype.time_zone else cells
        if moments.dtype.time_unit == "ms":  # type: ignore[attr-defined]
            moments = moments.set(moments.dt.epoch("ms").abs() > _LARGEST_MS, None)  # would wrap around in microseconds
        return moments.cast(naive)
    if cells.dtype != pl.String:
        return cells.cast(naive, strict=False) if cells.dtype == pl.Date else cells.clear(len(cells)).cast(naive)
    moments = cells.str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", strict=False)
    left = cells.filter(moments.is_null() & cells.is_not_null()).unique()
    if len(left) == 0:
        return moments
    text = left.str.strip_chars().str.replace_all("/", "-", literal=True)
    text = text.str.replace(r"^(\d{4}-\d\d-\d\d)T", "${1} ").str.replace(r" ?(Z|UTC)$", "+00:00")
    parsed = pl.Series([None], dtype=naive).new_from_index(0, len(left))
    for form in _FORMATS:
        found = text.str.to_datetime(form, time_unit="us", strict=False).dt.replace_time_zone(None)
        parsed = parsed.zip_with(parsed.is_not_null(), found)
    seconds = text.cast(pl.Int64, strict=False)
    length = text.str.len_bytes()
    for digits, factor in ((10, 1_000_000), (13, 1_000)):
        found = (seconds.set(length != digits, None) * factor).cast(naive)
        parsed = parsed.zip_with(parsed.is_not_null(), found)
    parsed = parsed.set(~parsed.dt.year().is_between(1000, 9999).fill_null(value=False), None)
    return moments.zip_with(moments.is_not_null(), cells.replace_strict(left, parsed, default=None, return_dtype=naive))
