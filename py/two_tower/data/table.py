"""A file as a table of text, and the rows of it that are refused."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import IO, Self

import polars as pl

from two_tower.errors import UserError
from two_tower.ids import INVISIBLE
from two_tower.writing import require_other, writing

LONGEST_VALUE = 200
"""Characters of a value that the report of rejects repeats."""

MOST_NAMES = 20
LONGEST_SHOWN = 60
"""Characters of a column's name that a message shows."""


def shown_names(columns: Sequence[str]) -> str:
    """The names of a file's columns, for a message: not all of thousands, and without what a terminal would obey."""
    names = [
        re.sub(r"[^ -~\u00a1-\uffff]|[\u200b-\u200f\u2028-\u202e\u2060\ufeff]", "\ufffd", name)
        for name in columns[:MOST_NAMES]
    ]
    names = [name if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]}…" for name in names]
    others = len(columns) - len(names)
    return ", ".join(names) + (f" and {others:,} others" if others else "")


def tidy_name(name: str) -> str:
    """A column's name as a reader sees it: trimmed, without invisible characters, full width as half width."""
    return re.sub(INVISIBLE, "", unicodedata.normalize("NFKC", name)).strip()


def renamed_columns(names: Sequence[str], rename: Mapping[str, str]) -> list[str]:
    """The columns of a file: ``names``, tidied, in lower case, or as ``rename`` has them. A key of ``rename`` that no
    name equals stands for one in other letters of case."""
    tidied = [tidy_name(name) for name in names]
    exact = {tidy_name(theirs): ours for theirs, ours in rename.items()}
    folded = {theirs.lower(): ours for theirs, ours in exact.items() if theirs not in tidied}
    return [exact.get(name) or folded.get(name.lower(), name.lower()) for name in tidied]


def require_columns(name: str, names: Sequence[str], rename: Mapping[str, str], expected: set[str]) -> None:
    """Raises UserError if the file lacks a column that ``rename`` names, since it would be ignored, or if one of the
    ``expected`` columns occurs more than once, since one of them would be."""
    there = {tidy_name(column).lower() for column in names}
    absent = [theirs for theirs in rename if tidy_name(theirs).lower() not in there]
    if absent:
        raise UserError(
            f"{name} has no column {', '.join(absent)}, which --map names",
            f"its columns are: {shown_names([tidy_name(column) for column in names])}",
        )
    columns = renamed_columns(names, rename)
    twice = sorted({column for column in columns if columns.count(column) > 1 and column in expected})
    if twice:
        raise UserError(f"{name} names a column twice: {', '.join(twice)}", "leave one out, or give it another name")


class Rejects:
    """The report of rejected rows: a CSV of line, column, value and reason, made when the first row is rejected."""

    header = "line,column,value,reason\n"

    def __init__(self, path: Path, source: Path | str = "-") -> None:
        """``source``: the file whose rows they are. Raises UserError if ``path`` is that file."""
        if source != "-":
            require_other(path, source)
        self.path = path
        self.rows = 0
        self.passed_over = 0
        """Rows that an earlier run, which this one resumes, has reported."""
        self.reasons: Counter[tuple[str, str]] = Counter()
        """Rejected rows by column and reason."""
        self._after = 0
        self._file: IO[str] | None = None
        self._lock = Lock()  # the thread that reads has rejects, and so has the one that checks

    def begin(self, after: int = 0) -> None:
        """Removes the report of an earlier run, or goes on with it where that run got as far as line ``after``."""
        self._after = after
        if not self.path.is_file():
            return
        with self.path.open(encoding="utf-8", errors="replace", newline="") as file:
            if file.readline() != self.header:
                return  # no report, and replaced only if there is one to write
            reported = [record for record in csv.reader(file) if record[0].isdecimal() and int(record[0]) <= after]
        with writing(self.path):
            self.path.unlink()
            if reported:
                with self.path.open("w", encoding="utf-8", newline="") as file:
                    file.write(self.header)
                    csv.writer(file, lineterminator="\n").writerows(reported)

    def pass_over(self, after: int) -> None:
        """Skips lines up to ``after``, which another run reports."""
        self._after = max(self._after, after)

    def flush(self) -> None:
        """Writes everything out, so that a kill loses nothing and another run can continue the report."""
        with self._lock, writing(self.path):
            if self._file:
                file, self._file = self._file, None
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def add(self, line: int, column: str, value: str, reason: str) -> None:
        """One rejected row."""
        self.add_rows(pl.DataFrame([(line, value)], ["line", "value"], orient="row"), column, reason)

    def add_rows(self, rows: pl.DataFrame, column: str, reason: str) -> None:
        """Rejected rows with columns ``line`` and ``value``, all for one reason."""
        self.reasons[column, reason] += len(rows)
        if self._after:
            later = rows.filter(pl.col("line") > self._after)
            self.passed_over += len(rows) - len(later)
            rows = later
            if len(rows) == 0:
                return
        report = rows.select(
            "line",
            pl.lit(column).alias("column"),
            pl.col("value").cast(pl.String).fill_null("").str.slice(0, LONGEST_VALUE),
            pl.lit(reason).alias("reason"),
        )
        with self._lock:
            if self._file is None:
                with writing(self.path):
                    resumed = bool(self._after or self.rows) and self.path.is_file()
                    self._file = self.path.open("a" if resumed else "w", encoding="utf-8", newline="")
                    if not resumed:
                        self._file.write(self.header)
            with writing(self.path):
                self._file.write(report.write_csv(include_header=False))
            self.rows += len(rows)

    def require_few(self, source: str, rows: int, most: float, done: str, remedy: str = "") -> None:
        """Raises UserError if more than the share ``most`` of ``rows`` is rejected: the file is not what it seems.
        ``done`` says what has become of it."""
        rejected = self.rows + self.passed_over
        if rejected <= most * rows:
            return
        self.flush()
        (column, reason), count = self.reasons.most_common(1)[0]
        where = f" in the column {column}" if column else ""
        raise UserError(
            f"{source}: {rejected:,} of {rows:,} rows are rejected, {count:,} of them{where}: {reason}; {done}",
            f"{self.path} has them by line{remedy}",
        )


@dataclass
class Table:
    """A file that is open for reading, its header known.

    ``columns`` are the file's, renamed as asked. ``batches(names)`` may be called once. ``read_bytes`` of
    ``total_bytes`` (None for a pipe) says how far it got, in bytes of the file as it is stored.
    """

    name: str
    columns: list[str]
    total_bytes: int | None
    _batches: Callable[[list[str]], Iterator[pl.DataFrame]]
    _position: Callable[[], int]
    _closing: ExitStack = field(default_factory=ExitStack)
    rows: int = 0

    @property
    def read_bytes(self) -> int:
        return self._position()

    def batches(self, names: list[str]) -> Generator[pl.DataFrame]:
        """Frames of ``line`` (Int64) and ``names``, in the order of the file; an empty cell is null.

        A thread reads the next while the caller is busy with the last.
        """
        with ThreadPoolExecutor(1) as reader:
            batches = self._batches(names)
            ahead = reader.submit(next, batches, None)
            while (batch := ahead.result()) is not None:
                ahead = reader.submit(next, batches, None)
                yield batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closing.close()


def table_of(name: str, rows: pl.DataFrame) -> Table:
    """A table of rows that are in memory already; they have ``line``."""
    columns = [column for column in rows.columns if column != "line"]
    return Table(name, columns, None, lambda names: iter([rows.select("line", *names)]), lambda: 0, rows=len(rows))
