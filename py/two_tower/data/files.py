"""Reading tables that other people wrote: CSV, gzip of CSV, and Parquet, in batches and with bounded memory.

A batch is a polars frame with the columns asked for and ``line``, the line of the file (the row, for Parquet) that a
record starts on. What makes a whole file unreadable raises UserError; a bad record goes to the rejects.

CSV without quotes, the usual case of large files, is checked by counting delimiters and parsed by polars. A block
with a quote, a stray carriage return, or a row of the wrong width is parsed by the csv module instead: it says where.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import IO, Any, Self

import polars as pl

from two_tower.errors import UserError
from two_tower.progress import Say

BLOCK = 4 << 20
"""Bytes of CSV that are parsed at a time."""
PARQUET_ROWS = 100_000
LONGEST_CELL = 1 << 20
"""Characters. A longer cell is a quote that does not close."""
LONGEST_VALUE = 200
"""Characters of a value that the report of rejects repeats."""

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
}


class Rejects:
    """The report of rejected rows: a CSV of line, column, value and reason, made when the first row is rejected."""

    header = "line,column,value,reason\n"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self.passed_over = 0
        """Rows that an earlier run, which this one resumes, has reported."""
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
        self.path.unlink()
        if reported:
            with self.path.open("w", encoding="utf-8", newline="") as file:
                file.write(self.header)
                csv.writer(file, lineterminator="\n").writerows(reported)

    def flush(self) -> None:
        """Leaves nothing for a kill to take."""
        with self._lock:
            if self._file:
                self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def add(self, line: int, column: str, value: str, reason: str) -> None:
        """One rejected row."""
        self.add_rows(pl.DataFrame([(line, value)], ["line", "value"], orient="row"), column, reason)

    def add_rows(self, rows: pl.DataFrame, column: str, reason: str) -> None:
        """Rejected rows with columns ``line`` and ``value``, all for one reason."""
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
                try:
                    resumed = bool(self._after) and self.path.is_file()
                    self._file = self.path.open("a" if resumed else "w", encoding="utf-8", newline="")
                except OSError as error:
                    raise UserError(f"cannot write the report of rejects {self.path}: {error.strerror}") from error
                if not resumed:
                    self._file.write(self.header)
            self._file.write(report.write_csv(include_header=False))
            self.rows += len(rows)


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


def open_table(
    source: Path | str,
    rejects: Rejects,
    *,
    expected: set[str],
    renamed: Mapping[str, str] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    say: Say = lambda _: None,
) -> Table:
    """Opens ``source``, a path or ``-`` for standard input, whatever its format.

    ``expected`` names columns by which the delimiter is recognised. ``renamed`` maps columns of the file to names
    wanted here. Raises UserError if the file cannot be read, or is none of the formats.
    """
    stack = ExitStack()
    try:
        raw: IO[bytes]
        total: int | None = None
        if str(source) == "-":
            name, raw = "standard input", sys.stdin.buffer
        else:
            name, path = str(source), Path(source)
            try:
                raw = stack.enter_context(path.open("rb"))
                total = path.stat().st_size if path.is_file() else None
            except OSError as error:
                raise UserError(f"cannot read {name}: {error.strerror}") from error
        counted = _Counted(raw)
        buffered = stack.enter_context(io.BufferedReader(counted, 1 << 20))
        magic = buffered.peek(8)[:8]
        for mark, description in _OTHER_FORMATS.items():
            if magic.startswith(mark):
                raise UserError(f"{name} is {description}", "give CSV, gzip of CSV, or Parquet")
        rename = dict(renamed or {})
        if magic.startswith(b"PAR1"):
            where = source
            if total is None:  # a pipe cannot be read from its end, where Parquet keeps its index
                copy = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".parquet"))  # noqa: SIM115
                shutil.copyfileobj(buffered, copy)
                copy.flush()
                where = copy.name
            table = _open_parquet(name, Path(where), rejects, rename)
        else:
            stream: io.BufferedIOBase = buffered
            if magic.startswith(b"\x1f\x8b"):
                stream = stack.enter_context(closing(gzip.GzipFile(fileobj=buffered)))
            blocks = _blocks(name, stream, encoding or _encoding_by_mark(magic))
            table = _open_csv(name, blocks, rejects, expected, rename, delimiter, say)
            table._position = lambda: counted.position
        table.total_bytes = total
        table._closing = stack.pop_all()
        return table
    finally:
        stack.close()


class _Counted(io.RawIOBase):
    """Counts the bytes read of a stream that is not its own to close."""

    def __init__(self, raw: IO[bytes]) -> None:
        self.raw = raw
        self.position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.raw.read(len(buffer))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


# ---------------------------------------------------------------------------------------------------------------- CSV


def _encoding_by_mark(start: bytes) -> str:
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"


def _blocks(name: str, stream: io.BufferedIOBase, encoding: str) -> Iterator[tuple[bytes, int]]:
    """Blocks of whole lines in UTF-8, each line ending in a newline, with the number of the block's first line."""
    try:
        is_utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError as error:
        raise UserError(f"there is no encoding {encoding!r}") from error
    line, tail, at_start, only_returns = 1, b"", True, False
    while True:
        try:
            data = stream.read(BLOCK)
        except EOFError as error:
            raise UserError(f"{name} is truncated: its gzip data end too early") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{name} is not intact: {error}") from error
        except OSError as error:
            raise UserError(f"cannot read {name}: {error.strerror or error}") from error
        last = not data
        if not is_utf8:
            try:
                data = decoder.decode(data, final=last).encode()
            except UnicodeDecodeError as error:
                raise UserError(f"{name}, after line {line}: not {encoding}: {error.reason}") from error
        if at_start:
            data, at_start = data.removeprefix(codecs.BOM_UTF8), False
            only_returns = b"\r" in data and b"\n" not in data
        if only_returns:
            data = data.replace(b"\r", b"\n")
        block = tail + data
        if last:
            block, tail = (block if block.endswith(b"\n") or not block else block + b"\n"), b""
        else:
            end = block.rfind(b"\n") + 1
            block, tail = block[:end], block[end:]
            if len(tail) > 4 * BLOCK:
                raise UserError(f"{name}, line {line + block.count(10)}: the line is longer than {4 * BLOCK >> 20} MiB")
        if block:
            _check_utf8(name, block, line)
            if b"\r" in block:
                block = block.replace(b"\r\n", b"\n")
            yield block, line
            line += block.count(b"\n")
        if last:
            return


def _check_utf8(name: str, block: bytes, line: int) -> None:
    try:
        block.decode()
    except UnicodeDecodeError as error:
        before = block[: error.start]
        raise UserError(
            f"{name}, line {line + before.count(10)}, byte {error.start - before.rfind(10)}: "
            f"0x{block[error.start]:02x} is not valid UTF-8",
            "convert the file, or name its encoding: --encoding cp1252",
        ) from error


def _open_csv(
    name: str,
    blocks: Iterator[tuple[bytes, int]],
    rejects: Rejects,
    expected: set[str],
    rename: Mapping[str, str],
    delimiter: str | None,
    say: Say,
) -> Table:
    feed = _Feed(blocks)
    while feed.more() and not feed.peek().strip():
        feed.skip()
    if not feed.more():
        raise UserError(f"{name} is empty", "its first line must name the columns")
    header = feed.peek()
    if delimiter is None:
        found = {mark: len(expected & set(_names(header, mark, rename))) for mark in _DELIMITERS}
        delimiter = max(found, key=lambda mark: (found[mark], header.count(mark)))
        if delimiter != ",":
            say(f"{name}: its columns are separated by {_DELIMITERS[delimiter]}s")
    columns = _names(header, delimiter, rename)
    feed.skip()
    twice = sorted({column for column in columns if columns.count(column) > 1 and column in expected})
    if twice:
        raise UserError(f"{name} names a column twice: {', '.join(twice)}")
    reader = _CsvReader(name, feed, columns, delimiter, rejects)
    table = Table(name, columns, None, reader.batches, lambda: 0)
    reader.table = table
    return table


def _names(header: str, delimiter: str, rename: Mapping[str, str]) -> list[str]:
    """The columns that a header names: trimmed, in lower case, renamed."""
    names = [cell.strip() for cell in next(csv.reader([header], delimiter=delimiter, skipinitialspace=True), [])]
    return [rename.get(name, name.lower()) for name in names]


class _Feed:
    """Lines, one by one, of blocks; the rest of a block can be had whole."""

    def __init__(self, blocks: Iterator[tuple[bytes, int]]) -> None:
        self.blocks = blocks
        self.lines: list[str] = []
        self.at = 0
        self.line = 1  # the number of the line that comes next

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if not self.more():
            raise StopIteration
        self.at += 1
        self.line += 1
        return self.lines[self.at - 1]

    def more(self) -> bool:
        """Whether there is another line; fetches a block where this needs one."""
        if self.at == len(self.lines):
            block, self.line = next(self.blocks, (b"", self.line))
            self.lines, self.at = io.StringIO(block.decode(), newline="\n").readlines(), 0
        return self.at < len(self.lines)

    def peek(self) -> str:
        return self.lines[self.at]

    def skip(self) -> None:
        next(self)

    def rest(self) -> tuple[bytes, int]:
        """What is left of the block at hand, else the next block; and the number of its first line."""
        if self.at == len(self.lines):
            return next(self.blocks, (b"", self.line))
        rest, line = "".join(self.lines[self.at :]).encode(), self.line
        self.lines, self.at = [], 0
        return rest, line

    def push(self, block: bytes, line: int) -> None:
        """Gives back what ``rest`` gave, to be had line by line."""
        self.lines, self.at, self.line = io.StringIO(block.decode(), newline="\n").readlines(), 0, line


class _CsvReader:
    def __init__(self, name: str, feed: _Feed, columns: list[str], delimiter: str, rejects: Rejects) -> None:
        self.name = name
        self.feed = feed
        self.columns = columns
        self.delimiter = delimiter
        self.rejects = rejects
        self.table: Table

    def batches(self, names: list[str]) -> Iterator[pl.DataFrame]:
        limit = csv.field_size_limit(LONGEST_CELL)
        try:
            while (rest := self.feed.rest())[0]:
                frame = self._quickly(*rest, names)
                if frame is None:
                    self.feed.push(*rest)
                    frame = self._carefully(names)
                yield frame
        finally:
            csv.field_size_limit(limit)

    def _quickly(self, block: bytes, line: int, names: list[str]) -> pl.DataFrame | None:
        """The block's records, or None if it takes more than counting to tell that all is well with it."""
        rows, width = block.count(b"\n"), len(self.columns)
        if any(odd in block for odd in (b'"', b"\0", b"\r")):
            return None
        if block.count(self.delimiter.encode()) != rows * (width - 1):
            return None
        # No row is too long, or polars objects; the sum is right; so no row is too short.
        wanted = sorted((self.columns.index(name), name) for name in names)
        try:
            frame = pl.read_csv(
                block,
                has_header=False,
                separator=self.delimiter,
                quote_char=None,
                schema={str(i): pl.String for i in range(width)},
                columns=[i for i, _ in wanted],
                infer_schema=False,
            )
        except pl.exceptions.PolarsError:
            return None
        if len(frame) != rows:
            return None
        self.table.rows += rows
        frame.columns = [name for _, name in wanted]
        return frame.with_columns(pl.int_range(line, line + rows, dtype=pl.Int64).alias("line"))

    def _carefully(self, names: list[str]) -> pl.DataFrame:
        """The records that begin in the block at hand."""
        width = len(self.columns)
        where = [self.columns.index(name) for name in names]
        reader = csv.reader(self.feed, delimiter=self.delimiter, skipinitialspace=True, strict=True)
        lines: list[int] = []
        records: list[list[str]] = []
        while self.feed.at < len(self.feed.lines):
            start = self.feed.line
            try:
                record = next(reader)
            except csv.Error as error:
                self._reject_broken(start, str(error))
                continue
            if not record or (len(record) == 1 and not record[0].strip()):
                continue  # a blank line
            self.table.rows += 1
            if len(record) != width:
                reason = f"{len(record)} cells where the header has {width}"
                self.rejects.add(start, "", self.delimiter.join(record), reason)
            elif any("\0" in cell for cell in record):
                column = next(c for c, cell in zip(self.columns, record, strict=True) if "\0" in cell)
                self.rejects.add(start, column, "", "contains a NUL byte")
            else:
                lines.append(start)
                records.append([record[i] for i in where])
        cells = zip(*records, strict=True) if records else ([] for _ in names)
        data = {name: pl.Series(column, dtype=pl.String) for name, column in zip(names, cells, strict=True)}
        frame = pl.DataFrame({"line": pl.Series(lines, dtype=pl.Int64), **data})
        return frame.with_columns(pl.when(pl.col(names) != "").then(pl.col(names)))

    def _reject_broken(self, start: int, problem: str) -> None:
        end = self.feed.line - 1
        if problem == "unexpected end of data":
            raise UserError(f"{self.name}, line {start}: a quote opens in this record and never closes")
        if problem.startswith("field larger than"):
            raise UserError(
                f"{self.name}, line {start}: a quote opens in this record and does not close "
                f"within {LONGEST_CELL:,} characters"
            )
        if end > start:
            raise UserError(
                f"{self.name}, line {start}: a quote opens in this record and closes only on line {end}, "
                "in the middle of a cell"
            )
        self.table.rows += 1
        self.rejects.add(start, "", "", f"not CSV: {problem}")


# ------------------------------------------------------------------------------------------------------------ Parquet


def _open_parquet(name: str, path: Path, rejects: Rejects, rename: Mapping[str, str]) -> Table:
    try:
        scan = pl.scan_parquet(path)
        names = scan.collect_schema().names()
        total = scan.select(pl.len()).collect().item()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{name} is not a readable Parquet file: {error}") from error
    columns = [rename.get(column, column.strip().lower()) for column in names]
    original = dict(zip(columns, names, strict=True))
    table: Table

    def batches(wanted: list[str]) -> Iterator[pl.DataFrame]:
        for start in range(0, total, PARQUET_ROWS):
            try:
                frame = scan.select(pl.col(original[c]).alias(c) for c in wanted).slice(start, PARQUET_ROWS).collect()
            except (pl.exceptions.PolarsError, OSError) as error:
                raise UserError(f"{name}, after row {start}: {error}") from error
            frame = frame.with_columns(pl.int_range(start + 1, start + 1 + len(frame), dtype=pl.Int64).alias("line"))
            table.rows += len(frame)
            yield _without_nul(frame, rejects).with_columns(pl.col(pl.String).replace("", None))

    size = path.stat().st_size
    table = Table(name, columns, None, batches, lambda: size * table.rows // max(total, 1))
    return table


def _without_nul(frame: pl.DataFrame, rejects: Rejects) -> pl.DataFrame:
    for column, kind in frame.schema.items():
        if kind == pl.String:
            bad = pl.col(column).str.contains("\0", literal=True).fill_null(value=False)
            if (rows := frame.filter(bad)).height:
                rejects.add_rows(rows.select("line", pl.lit("").alias("value")), column, "contains a NUL byte")
                frame = frame.filter(~bad)
    return frame
