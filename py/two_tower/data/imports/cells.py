"""Converts cells of files to values: texts, numbers, stars, times.

Each reader takes a column of any type that CSV or Parquet has. Plain values are parsed at once by polars; of the rest,
each distinct cell is parsed once. docs/data.md has a table of what is read and how.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, DecimalException
from functools import partial

import polars as pl

from two_tower.ids import INVISIBLE, visible
from two_tower.limits import LONGEST, MOST_LISTED
from two_tower.lists import split_lists

TIMES = ("created_at", "timestamp")
"""Columns that may hold the time of a review or decision; the first one present does."""
NO_TIME = "not a time that reads one way only, such as 2025-01-31T12:00:00Z"
FACTS = ("price", "duration_seconds", "released_at")
"""Columns of a catalogue that are read as typed values."""
PRICES = (1e-6, 1e12)
"""A sum of prices could not hold smaller ones (except 0), or larger ones, beside others."""
# In UTC and without zone, as timestamps has them.
_CALENDAR = (datetime(1, 1, 2), datetime(9999, 12, 30))
RELEASES = (datetime(1850, 1, 1), datetime(2200, 1, 1))
FIRST_MOMENT = datetime(1970, 1, 1)
AHEAD = timedelta(days=1)
"""How far ahead of now a time may be, since clocks differ, and files may lack time zones."""
NOT_YET = "not a time from 1970 to now"
NO_ID = "a number that is rounded, has a fraction, or is too large to be told from the next, is no id"
EXACT = 2**53
"""Above this, double precision skips whole numbers, so two ids could become one."""


def outside(column: str, first: datetime, last: datetime) -> pl.Expr:
    """Whether there is a time that is before ``first``, or not before ``last``."""
    return ~pl.col(column).is_between(first, last, closed="left").fill_null(value=True)


# -------------------------------------------------------------------------------------------------------------- texts


def texts(cells: pl.Series) -> pl.Series:
    """Cells as trimmed text; null where there is none. A whole number reads the same in every type that holds it."""
    if cells.dtype.is_float():
        whole = cells.is_finite() & (cells == cells.floor()) & (cells.abs() < EXACT)
        as_numbers = cells.set(~whole.fill_null(value=False), None).cast(pl.Int64).cast(pl.String)
        cells = as_numbers.zip_with(as_numbers.is_not_null(), cells.fill_nan(None).cast(pl.String))
    if cells.dtype.is_decimal():
        return cells.cast(pl.String).str.replace(r"\.0+$", "")
    return cells.cast(pl.String).str.strip_chars().replace("", None)


_ODD_ID = r"^(?:\d+\.0+|\d(?:\.\d+)?[eE]\+\d+|ObjectId\(\"?[0-9a-f]{24}\"?\))$"


def ids(cells: pl.Series) -> pl.Series:
    """Cells as ids: as :func:`visible` texts, null where a number has a fraction or is too large to tell from the next.

    Texts as programs write whole numbers are these numbers: ``7.0`` (pandas, where a cell of the column is empty),
    ``1e+05`` (R). Null of ``1.23457E+11``, which a spreadsheet rounded. MongoDB's ``ObjectId(…)`` is what it encloses.
    """
    if cells.dtype.is_decimal():
        whole = texts(cells)
        return whole.set(whole.str.contains(".", literal=True), None)
    if cells.dtype.is_float():
        exact = (cells == cells.floor()) & (cells.abs() < EXACT)
        return texts(cells.set(~exact.fill_null(value=False), None))
    return _ids_of(visible(texts(cells)))


def _ids_of(found: pl.Series) -> pl.Series:
    """:func:`ids` of visible texts."""
    odd = found.str.contains(_ODD_ID).fill_null(value=False)
    if not odd.any():
        return found
    written = found.set(~odd, None)
    inside = written.str.extract("([0-9a-f]{24})").fill_null(written.str.extract(r"^(\d+)\.0+$"))
    exact = written.set(~written.str.contains("e+", literal=True).fill_null(value=True), None)
    return found.zip_with(~odd, inside.fill_null(ids(exact.cast(pl.Float64, strict=False))))


def with_ids(batch: pl.DataFrame, column: str, fault: str) -> pl.DataFrame:
    """``batch`` with the ids in ``column``, and ``fault``, whether a cell holds something that is none, which stays."""
    cells = batch[column]
    shown = visible(texts(cells))
    read = ids(cells) if cells.dtype.is_numeric() else _ids_of(shown)
    none = read.is_null() & shown.is_not_null()
    return batch.with_columns(read.fill_null(shown).alias(column), none.alias(fault))


def prose(cells: pl.Series) -> pl.Series:
    """Cells as :func:`texts` in NFC, so that equal letters are equal bytes, however the file's program encodes them."""
    return texts(cells).str.normalize("NFC")


def names(cells: pl.Series) -> pl.Series:
    """Cells as :func:`prose`, and :func:`visible`, since a name is the same if it looks the same."""
    return prose(visible(texts(cells)))


NO_NAMES = ("(no genres listed)", "set()", "character(0)")
"""What exporters write where a list is empty."""


def listed(cells: pl.Series) -> pl.Series:
    """Lists of names, given as lists or as texts that :func:`split_lists` splits; without empty names and duplicates.

    Null if a text begins as a list but is not one.
    """
    one = pl.element().str.replace_all(INVISIBLE, "").str.strip_chars().str.normalize("NFC")
    return (
        _split(cells)
        .list.eval(one)
        .list.eval(
            pl.element().filter((pl.element() != "") & ~pl.element().is_in(NO_NAMES)).unique(maintain_order=True)
        )
    )


def listed_addresses(cells: pl.Series) -> pl.Series:
    """Lists of addresses, in the formats of :func:`listed`, unchanged."""
    one = pl.element().str.strip_chars()
    return _split(cells).list.eval(one).list.eval(pl.element().filter(pl.element() != "").unique(maintain_order=True))


def _split(cells: pl.Series) -> pl.Series:
    if not isinstance(cells.dtype, pl.List):
        return split_lists(texts(cells))
    found = cells.cast(pl.List(pl.String))
    if cells.dtype.inner.is_float():  # whole numbers, where another list of the column has none
        return found.list.eval(pl.element().str.replace(r"\.0$", ""))
    return found


def lists_of_numbers(cells: pl.Series) -> pl.Series:
    """Lists of numbers in single precision, given as lists or as one text in any usual brackets, separated by commas,
    semicolons, bars or spaces; null if there is anything else among them, or a bracket does not close."""
    if isinstance(cells.dtype, pl.List) and cells.dtype.inner.is_numeric():
        read = cells.cast(pl.List(pl.Float32))
    elif isinstance(cells.dtype, pl.List):
        read = cells.cast(pl.List(pl.Float32), strict=False)
    else:
        written = texts(cells)
        cut_off = written.str.contains(r"^[\[({]") != written.str.contains(r"[\])}]$")
        inside = written.set(cut_off, None).str.strip_chars("[](){} \n\t").str.replace_all(r"\s*[,;|]\s*|\s+", " ")
        read = inside.str.split(" ").cast(pl.List(pl.Float32), strict=False)
    whole = read.list.eval(pl.element().is_not_null() & pl.element().is_finite()).list.all().fill_null(value=False)
    return read.set(~whole, None)


def faults_of_length(batch: pl.DataFrame, read: Mapping[str, str]) -> list[tuple[str, pl.Expr, str]]:
    """Faults of texts, and of lists of texts, that are longer than :mod:`two_tower.limits` allows. ``read``: column of
    the file → the column of ``batch`` with its texts as they were read."""
    faults = []
    for name, column in read.items():
        longest = LONGEST[name]
        if isinstance(batch.schema[column], pl.List):
            faults.append((name, pl.col(column).list.len() > MOST_LISTED, f"a list of more than {MOST_LISTED:,}"))
            size = pl.col(column).list.eval(pl.element().str.len_bytes()).list.max()
        else:
            size = pl.col(column).cast(pl.String).str.len_bytes()
        faults.append((name, size > longest, f"longer than {longest:,} bytes"))
    return faults


# -------------------------------------------------------------------------------------------------- facts of a product


def facts(batch: pl.DataFrame) -> tuple[pl.DataFrame, list[tuple[str, pl.Expr, str]]]:
    """``batch`` with ``price_`` and ``duration_seconds_`` (Float64), ``released_at_`` (Datetime) and ``price_text``,
    every digit of the price, as far as it has the columns to read them from, and the faults of these."""
    read: list[pl.Series] = []
    faults = []
    batch = batch.with_columns(texts(batch[name]) for name in FACTS if batch.schema.get(name) == pl.String)
    if "price" in batch.columns:
        price = number_texts(batch["price"], read_price)
        read += [price.alias("price_text"), price.cast(pl.Float64).alias("price_")]
        value = pl.col("price_")
        # 1e-400 is not 0, though it is as a float.
        zero = (value == 0) & ~pl.col("price_text").str.contains("^[^eE]*[1-9]")
        good = zero | value.is_between(PRICES[0], PRICES[1], closed="left")
        reason = "not a price: 0, or a number from 0.000001 to below 1,000,000,000,000, maybe in yen"
        faults.append(("price", pl.col("price").is_not_null() & ~good.fill_null(value=False), reason))
    if "duration_seconds" in batch.columns:
        read.append(numbers(batch["duration_seconds"]).alias("duration_seconds_"))
        value, given = pl.col("duration_seconds_"), pl.col("duration_seconds").is_not_null()
        good = value.is_between(0, 2**31 - 1) & (value == value.floor())
        reason = "not a duration: a whole number of seconds"
        faults.append(("duration_seconds", given & ~good.fill_null(value=False), reason))
    if "released_at" in batch.columns:
        read.append(timestamps(batch["released_at"]).alias("released_at_"))
        bad = pl.col("released_at").is_not_null() & pl.col("released_at_").is_null()
        faults.append(("released_at", bad, "not a date that reads one way only, such as 2025-01-31"))
        faults.append(("released_at", outside("released_at_", *RELEASES), "not a date from 1850 to 2199"))
    return batch.with_columns(read), faults


# ------------------------------------------------------------------------------------------------------------ numbers

_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_GROUPED = re.compile(r"([+-]?)([1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?:[ '’]\d{3})+)((?:\.\d+)?)", re.ASCII)
_GROUPED_BY_DOTS = re.compile(
    r"([+-]?)([1-9]\d{0,2}(?:\.\d{3}){2,}|[1-9]\d{0,2}(?:\.\d{3})+(?=,))((?:,\d+)?)", re.ASCII
)
_DECIMAL_COMMA = re.compile(r"([+-]?\d+),(\d+)", re.ASCII)
_STARS = re.compile("[★⭐🌟]+[☆]*")
_SHARE = re.compile(r"(.+?) ?/ ?(5|10|100)", re.ASCII)


def read_number(text: str) -> str | None:
    """A number as people write it, in the notation of computers: 1,980; 1.980,50; 1 980; 4,5; １９８０. Otherwise None.

    A comma before three digits separates thousands; before any other number of digits, or after a leading 0, it
    separates decimals. A single dot always separates decimals.
    """
    text = unicodedata.normalize("NFKC", text).strip().replace("−", "-")
    if _PLAIN.fullmatch(text):
        return text
    if found := _GROUPED.fullmatch(text):
        return found[1] + re.sub(r"\D", "", found[2]) + found[3]
    if found := _GROUPED_BY_DOTS.fullmatch(text):
        return found[1] + found[2].replace(".", "") + found[3].replace(",", ".")
    if found := _DECIMAL_COMMA.fullmatch(text):
        return f"{found[1]}.{found[2]}"
    return None


def read_price(text: str) -> str | None:
    """A number, maybe in yen: ¥980, 980円, JPY 980. None for another currency, since prices are compared."""
    text = unicodedata.normalize("NFKC", text).strip()
    bare = re.sub(r"^(¥|\\|JPY|円)\s*|\s*(円|¥|JPY|yen)$", "", text, count=1, flags=re.IGNORECASE)
    return read_number(bare)


def read_stars(text: str, scale: float) -> str | None:
    """A number up to ``scale``, star symbols (of five), or a fraction such as 8/10, in units of ``scale``."""
    text = unicodedata.normalize("NFKC", text).strip().replace("\ufe0f", "")
    if _STARS.fullmatch(text):
        drawn = len(text) - text.count("☆")
        return str(Decimal(drawn) * Decimal(str(scale)) / 5) if len(text) <= 5 else None
    if found := _SHARE.fullmatch(text):
        value = read_number(found[1])
        try:
            return None if value is None else str(Decimal(value) * Decimal(str(scale)) / Decimal(found[2]))
        except DecimalException:  # an exponent beyond any number, as it is read or multiplied
            return None
    return read_number(text)


def number_texts(cells: pl.Series, read: Callable[[str], str | None] = read_number) -> pl.Series:
    """Finite numbers as text that PostgreSQL reads as numeric, with every digit; null if a cell has none."""
    if cells.dtype == pl.Boolean:
        return cells.clear(len(cells)).cast(pl.String)
    if cells.dtype != pl.String:
        as_numbers = cells.cast(pl.Float64, strict=False)
        return cells.cast(pl.String).set(~as_numbers.is_finite().fill_null(value=False), None)
    cells = cells.str.strip_chars()
    plain = cells.cast(pl.Float64, strict=False)
    unread = cells.filter(plain.is_null() & cells.is_not_null()).unique()
    found = cells.set(~plain.is_finite().fill_null(value=False), None)
    if len(unread):
        meant = pl.Series([read(text) for text in unread], dtype=pl.String)
        others = cells.replace_strict(unread, meant, default=None, return_dtype=pl.String)
        found = found.zip_with(plain.is_not_null(), others)
    return found


def numbers(cells: pl.Series, read: Callable[[str], str | None] = read_number) -> pl.Series:
    """Finite numbers as Float64, null if a cell has none."""
    found = number_texts(cells, read).cast(pl.Float64, strict=False)
    return found.set(~found.is_finite().fill_null(value=False), None)


def stars(cells: pl.Series, scale: float) -> pl.Series:
    """Stars from 0 to 5, null if a cell has none; ``scale`` is the best rating in the file."""
    found = numbers(cells, partial(read_stars, scale=scale))
    return found.set(~found.is_between(0, scale).fill_null(value=False), None).abs() * (5 / scale)  # -0 is 0


def seems_ten_point(cells: pl.Series) -> bool:
    """Whether stars go up to 10: three or more distinct values above 5, in at least 5 % of rows, none above 10."""
    found = numbers(cells, partial(read_stars, scale=10.0)).drop_nulls()
    above = found.filter(found > 5)
    return above.n_unique() >= 3 and len(above) * 20 >= len(found) and float(above.max()) <= 10  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ times


def as_text(cells: pl.Series) -> pl.Series:
    """Cells as text, for the report; times outside the calendar as the number of units since 1970 in the file."""
    if isinstance(cells.dtype, pl.List):
        return cells.list.eval(pl.element().cast(pl.String)).list.join("|")
    if not isinstance(cells.dtype, pl.Datetime | pl.Date):
        return cells.cast(pl.String)
    kind = cells.dtype.time_unit if isinstance(cells.dtype, pl.Datetime) else "days"
    unit, per_second = _UNITS[kind]
    held = cells.to_physical()
    seconds = held.cast(pl.Float64) / per_second
    first, last = (moment.replace(tzinfo=UTC).timestamp() for moment in _CALENDAR)
    inside = seconds.is_between(first, last).fill_null(value=False)
    counted = pl.select(pl.format(f"{{}} {unit} since 1970", held)).to_series()
    return cells.set(~inside, None).cast(pl.String).zip_with(inside, counted)


_UNITS = {
    "days": ("days", 1 / 86_400), "ms": ("milliseconds", 1e3), "us": ("microseconds", 1e6), "ns": ("nanoseconds", 1e9),
}  # fmt: skip
_LARGEST_MS = 2**63 // 1_000 - 1
_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f %#z",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d %H:%M%#z",
    "%Y-%m-%d %H:%M %#z",
    "%Y-%m-%d %I:%M:%S %p",
    "%Y-%m-%d %I:%M %p",
    "%Y%m%d",
    "%Y%m%d%H%M%S",
    "%Y%m%dT%H%M%S",
    "%Y%m%dT%H%M%S%#z",
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S%.f",
    "%d-%b-%Y",
    "%d %b %Y",
    "%d %B %Y",
    "%d-%b-%Y %H:%M:%S%.f",
    "%d %b %Y %H:%M:%S%.f",
    "%d %b %Y %H:%M:%S%.f%#z",
    "%d %b %Y %H:%M:%S%.f %#z",
    "%b %d %Y",
    "%B %d %Y",
    "%b %d %H:%M:%S %Y",
)
_REWRITTEN = (
    # 2025年1月31日 12時00分; 2025/1/31; 2025.1.31
    (r"^(\d{4})年 ?(\d{1,2})月 ?(\d{1,2})日", "${1}-${2}-${3}"),
    (r" ?(\d{1,2})時(\d{1,2})分(\d{1,2})秒$", " ${1}:${2}:${3}"),
    (r" ?(\d{1,2})時(\d{1,2})分$", " ${1}:${2}"),
    (r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})", "${1}-${2}-${3}"),
    (r"^(\d{4}-\d{1,2}-\d{1,2})T", "${1} "),
    # Fri, 31 Jan 2025; Jan 31, 2025
    (r"^(Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? +", ""),
    (r"^([A-Za-z]+ \d{1,2}),", "${1}"),
    (r" ?(Z|UTC|GMT)$", "+00:00"),
    (r" ?\(?JST\)?$", "+09:00"),
)
_SINCE_1970 = {9: 10**6, 10: 10**6, 12: 10**3, 13: 10**3, 15: 1, 16: 1}
"""Digits → microseconds in one: seconds, milliseconds and microseconds from 1973 on. 18 and 19 are nanoseconds."""


def timestamps(cells: pl.Series) -> pl.Series:
    """Times in UTC as Datetime('us') without zone; null if a cell has none, or a year outside 1000 to 9999.

    Text may be ISO 8601 with a space or slashes, with or without a time, zone or fraction, or in a format of _FORMATS
    and _REWRITTEN. Text and numbers may be seconds since 1970 (9 or 10 digits), milliseconds (12 or 13), microseconds
    (15 or 16) or nanoseconds (18 or 19). Without a zone it is UTC. An ambiguous time, such as 01/02/2025, is not
    read.
    """
    naive = pl.Datetime("us")
    if isinstance(cells.dtype, pl.Datetime):
        moments = cells.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if cells.dtype.time_zone else cells
        if moments.dtype.time_unit == "ms":  # type: ignore[attr-defined]
            moments = moments.set(moments.dt.epoch("ms").abs() > _LARGEST_MS, None)  # would wrap around in microseconds
        return moments.cast(naive)
    if cells.dtype == pl.Date:
        return cells.cast(naive, strict=False)
    if cells.dtype.is_float():
        fraction = (cells.is_between(1e8, 1e10, closed="left") & (cells != cells.floor())).fill_null(value=False)
        moments = (cells.set(~fraction, None) * 1e6).round().cast(pl.Int64).cast(naive)
        return timestamps(texts(cells.set(fraction, None))).zip_with(~fraction, moments)
    if cells.dtype.is_integer():
        return timestamps(cells.cast(pl.String))
    if cells.dtype != pl.String:
        return cells.clear(len(cells)).cast(naive)
    moments = cells.str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", strict=False)
    left = cells.filter(moments.is_null() & cells.is_not_null()).unique()
    if len(left) == 0:
        return moments
    text = left.str.strip_chars().str.normalize("NFKC")
    parsed = _since_1970(text)
    for pattern, replacement in _REWRITTEN:
        text = text.str.replace(pattern, replacement)
    for form in _FORMATS:
        if parsed.null_count() == 0:
            break
        found = text.str.to_datetime(form, time_unit="us", strict=False).dt.replace_time_zone(None)
        parsed = parsed.zip_with(parsed.is_not_null(), found)
    parsed = parsed.set(~parsed.dt.year().is_between(1000, 9999).fill_null(value=False), None)
    return moments.zip_with(moments.is_not_null(), cells.replace_strict(left, parsed, default=None, return_dtype=naive))


def _since_1970(text: pl.Series) -> pl.Series:
    """Times from texts of digits, by their number; null if they could also be a date."""
    naive = pl.Datetime("us")
    whole = text.str.extract(r"^(\d+)(?:\.\d*)?$")
    part = text.str.extract(r"^\d{9,10}\.(\d+)$").str.pad_end(6, "0").str.slice(0, 6).cast(pl.Int64).fill_null(0)
    whole = whole.set(text.str.contains(r"\.\d*[1-9]") & (whole.str.len_bytes() > 10), None)
    count, value = whole.str.len_bytes(), whole.cast(pl.Int64, strict=False)
    parsed = pl.Series([None], dtype=naive).new_from_index(0, len(text))
    for digits, factor in _SINCE_1970.items():
        found = (value.set(count != digits, None) * factor + part).cast(naive)
        parsed = parsed.zip_with(parsed.is_not_null(), found)
    nanoseconds = value.set(~count.is_in([18, 19]), None) // 1_000
    parsed = parsed.zip_with(parsed.is_not_null(), nanoseconds.cast(naive))
    # 202501311200 is a minute of 2025, and also milliseconds of 1976.
    minutes = text.str.to_datetime("%Y%m%d%H%M", time_unit="us", strict=False)
    return parsed.set((count == 12).fill_null(value=False) & minutes.is_not_null(), None)
