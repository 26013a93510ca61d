"""Reading CSV: in parallel by blocks of whole lines, and line by line after an error."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Self

import polars as pl

from two_tower.data import encodings
from two_tower.data.dialects import (
    DELIMITER,
    MARKED_LINE,
    UNIT,
    UNMARKED,
    csv_records,
    is_escaped,
    unescaped,
    unnamed_cell,
)
from two_tower.data.table import Rejects, Table, renamed_columns, require_columns, tidy_name
from two_tower.errors import UserError
from two_tower.progress import Say

BLOCK = 4 << 20
"""Bytes of CSV that are parsed at a time."""

LONGEST_CELL = 1 << 20
"""Characters. A longer cell means an unclosed quote."""

SAMPLE = 1 << 18
"""Bytes from which an encoding is detected."""

NOTHING = ("\\N", "NULL", "null", "NA", "<NA>", "N/A", "#N/A", "NaT", "0000-00-00", "0000-00-00 00:00:00")
"""What databases, R, pandas and spreadsheets write for a cell in which nothing is."""

csv.field_size_limit(LONGEST_CELL)  # of all readers of the process

_OTHER_FORMATS = (
    (rb"PK\x03\x04", "a zip archive or a spreadsheet"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a spreadsheet in Excel's old format"),
    (rb"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (rb"\x1f\x8b", "compressed with gzip twice"),
    (rb"PAR1", "compressed Parquet"),
    (rb"PARE", "encrypted Parquet"),
    (rb"ARROW1", "an Arrow (Feather) file"),
    (rb"BZh", "compressed with bzip2"),
    (rb"\xfd7zXZ", "compressed with xz"),
    (rb'\s*(\[\s*)*\{\s*"|\s*\[\s*\[', "JSON"),
    (rb"\s*<", "HTML or XML"),
    (rb"[^\n]*\0", "no text: a NUL byte is in its first line"),
)
"""Patterns of the first bytes of files that people take for CSV, which may be inside gzip or UTF-16."""
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar", "::": "double colon", " ": "space"}
_RULE = re.compile(r"(?=.*--)[-+\s,;|:]+")
"""The line below the names that sqlcmd, sqlplus and psql draw."""
_SEPARATOR_LINE = re.compile(rf'"?sep=({DELIMITER})"?[;,\t]*', re.IGNORECASE)
"""A first line that tells Excel the delimiter."""
_UNQUOTED = ("\t", UNIT)
"""Delimiters of formats that usually have no quotes around cells, so that a cell may begin with a quote of its own."""
_TEXT_FORMULA = r'^="([^"]*)"$'
"""How exporters keep Excel from reading a text such as 0012 as a number."""


def blocks_of(name: str, stream: io.BufferedIOBase, encoding: str | None, say: Say) -> Iterator[tuple[bytes, int]]:
    """Blocks of whole lines in UTF-8, each line ending in a newline, with the number of the block's first line.

    If no encoding is given, it is UTF-8, or a Japanese encoding that is detected beyond doubt.
    """
    try:
        if encoding is not None and not codecs.lookup(encoding)._is_text_encoding:  # such as base64
            raise LookupError(encoding)
        is_utf8 = encoding is None or codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")
        decoder = codecs.getincrementaldecoder(encoding or "utf-8")()
    except LookupError as error:
        raise UserError(f"there is no encoding {encoding!r}") from error
    line, tail, at_start, only_returns, only_ascii = 1, b"", True, False, True
    told = encoding is not None
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
        if at_start and not told and (marked := encodings.encoding_by_mark(data)):
            encoding, is_utf8, decoder, told = marked, False, codecs.getincrementaldecoder(marked)(), True
        if at_start and not (told and b"\0" in data[:8]):
            _refuse_other_formats(name, data)
        if not is_utf8:
            data = _decoded(name, line, decoder, data, encoding, last=last)
        if at_start:
            data, at_start = data.removeprefix(codecs.BOM_UTF8), False
            _refuse_other_formats(name, data)
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
            if not told and only_ascii and not block.isascii():
                only_ascii = False
                if found := _japanese(block):
                    say(f"{name}: it is in {found} (an import takes another by --encoding)")
                    encoding, is_utf8, decoder, told = found, False, codecs.getincrementaldecoder(found)(), True
                    block = _decoded(name, line, decoder, block, encoding)
                    tail = _decoded(name, line, decoder, tail, encoding)
            _check_utf8(name, block, line)
            if codecs.BOM_UTF8 in block:  # byte order marks inside: of a concatenated file, or of a pasted cell
                block = block.replace(codecs.BOM_UTF8, b"")
            if b"\r" in block:
                block = block.replace(b"\r\n", b"\n")
            yield block, line
            line += block.count(b"\n")
        if last:
            return


def _refuse_other_formats(name: str, start: bytes) -> None:
    """Raises UserError if a file that begins with ``start`` is no CSV."""
    for pattern, description in _OTHER_FORMATS:
        if re.match(pattern, start):
            raise UserError(f"{name} is {description}", "give CSV, gzip of CSV, or Parquet")


def _decoded(
    name: str, line: int, decoder: codecs.IncrementalDecoder, data: bytes, encoding: str | None, *, last: bool = False
) -> bytes:
    try:
        return decoder.decode(data, final=last).encode()
    except UnicodeError as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{name}, after line {line}: not {encoding}: {reason}", "convert the file, or name its encoding"
        ) from error


def _japanese(block: bytes) -> str | None:
    """The Japanese encoding of a block's lines that are not ASCII, or None if they are UTF-8."""
    try:
        block.decode()
    except UnicodeDecodeError as error:
        before = block[: block.rfind(b"\n", 0, error.start) + 1]
        return encodings.japanese(_lines(block, error.start)) if before.isascii() else None
    return None


def _lines(block: bytes, at: int, size: int = SAMPLE) -> bytes:
    """About ``size`` bytes of whole lines of ``block``, from the line that contains ``at``."""
    end = block.find(b"\n", min(at + size, len(block) - 1))
    return block[block.rfind(b"\n", 0, at) + 1 : end + 1 if end >= 0 else None]


def _check_utf8(name: str, block: bytes, line: int) -> None:
    try:
        block.decode()
    except UnicodeDecodeError as error:
        before = block[: error.start]
        seen = [f"--encoding {found} reads {text}" for found, text in encodings.readings(_lines(block, error.start, 0))]
        hint = "convert the file to UTF-8, or import it by its encoding"  # training from files has no such option
        raise UserError(
            f"{name}, line {line + before.count(10)}, byte {error.start - before.rfind(10)}: "
            f"0x{block[error.start]:02x} is not valid UTF-8",
            f"{hint}: {'; '.join(seen)}" if seen else hint,
        ) from error


def open_csv(
    name: str,
    blocks: Iterator[tuple[bytes, int]],
    rejects: Rejects,
    expected: set[str],
    rename: Mapping[str, str],
    delimiter: str | None,
    names: Sequence[str],
    backslashes: bool | None,
    say: Say,
) -> Table:
    """The table of a CSV. ``names`` are its columns if the file has no header line; ``backslashes`` says whether a
    backslash escapes the next character, None that the first rows decide."""
    feed = _Feed(blocks)
    while feed.more() and not feed.peek().strip():
        feed.skip()
    if not feed.more():
        raise UserError(f"{name} is empty", "its first line must name the columns")
    if separator := _SEPARATOR_LINE.fullmatch(feed.peek().strip("\n")):
        delimiter = delimiter or separator[1]
        feed.skip()
        if not feed.more():
            raise UserError(f"{name} is empty", "the line after sep= must name the columns")
    header = ",".join(names) if names else feed.peek()
    if delimiter is None:
        line = feed.peek()
        found = {mark: len(expected & set(renamed_columns(_names(header, mark), rename))) for mark in _DELIMITERS}
        if names:
            found = {mark: int(line.count(mark) == len(names) - 1) for mark in _DELIMITERS}
        delimiter = max(found, key=lambda mark: (found[mark], mark != " " and line.count(mark)))
        if delimiter != ",":
            say(f"{name}: its columns are separated by {_DELIMITERS[delimiter]}s")
    header_names = _names(header, "," if names else delimiter)
    columns = renamed_columns(header_names, rename)
    if not names:
        if delimiter not in ("\t", "::") and _is_open(header, delimiter):
            raise UserError(f"{name}: a quote opens among the names of the columns and does not close on their line")
        feed.skip()
        if feed.more() and _RULE.fullmatch(feed.peek()):
            feed.skip()
    if len(delimiter) > 1:
        feed.replace(delimiter, UNIT)
        delimiter = UNIT
    require_columns(name, header_names, rename, expected)
    if not names and feed.more():
        place = unnamed_cell(header, feed.lines[feed.at :], delimiter, len(columns))
        if place is not None:
            columns.insert(place, "")
            which = "first" if place == 0 else "last"
            say(f"{name}: the {which} cell of each row is passed over, since the header does not name it")
    if backslashes is None and feed.more() and is_escaped(feed.lines[feed.at :], delimiter, len(columns)):
        backslashes = True
        say(f"{name}: a backslash escapes what follows it (an import with --no-backslashes reads it as a letter)")
    if backslashes:
        feed.unescape()
    reader = _CsvReader(name, feed, columns, delimiter, rejects, rename, say, escaped=bool(backslashes))
    table = Table(name, columns, None, reader.batches, lambda: 0)
    reader.table = table
    return table


def _names(header: str, delimiter: str) -> list[str]:
    """The columns that a header names; full width, of commas too, as half width."""
    if len(delimiter) > 1:
        header, delimiter = header.replace(delimiter, UNIT), UNIT
    if delimiter.isascii():
        header = unicodedata.normalize("NFKC", header)
    try:
        return next(csv_records([header], delimiter), [])
    except csv.Error:  # a carriage return, or more characters than a cell may have
        return [header]


def _is_open(header: str, delimiter: str) -> bool:
    """Whether a quoted name goes on after the header's line."""
    try:
        next(csv_records([header], delimiter, strict=True), [])
    except csv.Error as error:
        return str(error) == "unexpected end of data"
    return False


class _Feed:
    """Iterates over the lines of blocks; the rest of a block can be taken whole."""

    def __init__(self, blocks: Iterator[tuple[bytes, int]]) -> None:
        self.blocks = blocks
        self.lines: list[str] = []
        self.at = 0
        self.line = 1  # the number of the line that comes next
        self.taken: list[str] = []
        """Lines of the record that is being read."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if not self.more():
            raise StopIteration
        self.at += 1
        text = self.lines[self.at - 1]
        self.taken.append(text)
        self.line += 1 + text.count(MARKED_LINE.decode())
        return text

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

    def give_back(self) -> None:
        """Takes back all lines of a record but its first."""
        back = self.taken[1:]
        self.lines, self.at = back + self.lines[self.at :], 0
        self.line -= sum(1 + text.count(MARKED_LINE.decode()) for text in back)

    def rest(self) -> tuple[bytes, int]:
        """What is left of the block at hand, else the next block; and the number of its first line."""
        if self.at == len(self.lines):
            return next(self.blocks, (b"", self.line))
        rest, line = "".join(self.lines[self.at :]).encode(), self.line
        self.lines, self.at = [], 0
        return rest, line

    def replace(self, old: str, new: str) -> None:
        """Replaces ``old`` by ``new`` in all further lines. Both are ASCII."""
        blocks = self.blocks
        self.blocks = ((block.replace(old.encode(), new.encode()), line) for block, line in blocks)
        self.lines = [line.replace(old, new) for line in self.lines]

    def unescape(self) -> None:
        """Reads backslashes of all lines to come as escapes."""
        rest, line = self.rest() if self.more() else (b"", self.line)
        self.blocks = self._unescape(chain([(rest, line)], self.blocks))

    @staticmethod
    def _unescape(blocks: Iterator[tuple[bytes, int]]) -> Iterator[tuple[bytes, int]]:
        block, line = b"", 1
        for more, at in blocks:
            block, line = block + more, line if block else at
            # The end of a line that is escaped is none, and what it goes on with is in the next block.
            if (len(block) - len(block[:-1].rstrip(b"\\")) - 1) % 2 == 0:
                yield unescaped(block), line
                block = b""
        if block:
            yield unescaped(block[:-2] + b"\n"), line

    def push(self, block: bytes, line: int) -> None:
        """Takes back what ``rest`` returned, to be read line by line."""
        self.lines, self.at, self.line = io.StringIO(block.decode(), newline="\n").readlines(), 0, line


class _CsvReader:
    def __init__(
        self,
        name: str,
        feed: _Feed,
        columns: list[str],
        delimiter: str,
        rejects: Rejects,
        rename: Mapping[str, str],
        say: Say,
        *,
        escaped: bool,
    ) -> None:
        self.name = name
        self.feed = feed
        self.columns = columns
        self.delimiter = delimiter
        self.rejects = rejects
        self.rename = rename
        self.header_words = [*columns, *(tidy_name(theirs).lower() for theirs in rename)]
        self.escaped = escaped
        self.say = say
        self.table: Table

    def batches(self, names: list[str]) -> Iterator[pl.DataFrame]:
        headers: list[int] = []
        while (rest := self.feed.rest())[0]:
            frame = self._quickly(*rest, names)
            if frame is None:
                self.feed.push(*rest)
                frame = self._carefully(names)
            if self.escaped:
                frame = frame.with_columns(pl.col(names).str.replace_many(UNMARKED))
            if again := self._repeated_headers(frame, names):
                headers += again
                self.table.rows -= len(again)
                frame = frame.filter(~pl.col("line").is_in(again))
            yield frame
        if headers:
            others = f" and {len(headers) - 1:,} others" if len(headers) > 1 else ""
            self.say(f"{self.name}: line {headers[0]:,}{others} name the columns again, and are passed over")

    def _repeated_headers(self, frame: pl.DataFrame, names: list[str]) -> list[int]:
        """Lines that name the columns, as the first of each of several files that were put together does.

        Raises UserError where one names them in another order: what follows would be read as what it is not.
        """
        first = pl.col(names[0])
        named = frame.filter(
            first.str.len_bytes() <= max(map(len, self.header_words)) + 2
        )  # addresses are longer, which saves most of it
        named = named.filter(first.str.strip_chars().str.to_lowercase().is_in(self.header_words))
        found = []
        for line, *row in named.select("line", *names).rows():
            cells = renamed_columns([cell or "" for cell in row], self.rename)
            if cells == names:
                found.append(line)
            elif sorted(cells) == sorted(names):
                raise UserError(
                    f"{self.name}, line {line:,}: the columns are named again, in another order",
                    "import the files that it was put together from one by one",
                )
        return found

    def _quickly(self, block: bytes, line: int, names: list[str]) -> pl.DataFrame | None:
        """The block's records, or None if counting delimiters cannot show that every row is well-formed."""
        rows, width = block.count(b"\n"), len(self.columns)
        if any(odd in block for odd in (b'"', b"\0", b"\r", MARKED_LINE)):
            return None
        if block.count(self.delimiter.encode()) != rows * (width - 1):
            return None
        # polars refuses rows that are too long, and the total is right, so no row is too short.
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
                null_values=list(NOTHING),
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
        reader = csv_records(self.feed, self.delimiter, strict=True)
        lines: list[int] = []
        records: list[list[str]] = []
        while self.feed.at < len(self.feed.lines):
            start, first = self.feed.line, self.feed.peek()
            self.feed.taken = []
            plain = first.removesuffix("\n").split(self.delimiter) if self.delimiter in _UNQUOTED else []
            try:
                record = next(reader)
                # Two rows of which each has a quote would be one, with a cell that holds the end of the first.
                merged = len(self.feed.taken) > 1 and any(self.delimiter in cell and "\n" in cell for cell in record)
            except csv.Error as error:
                if len(plain) != width:
                    self._reject_broken(start, first, str(error))
                    continue
                merged = True
            if merged and len(plain) == width:
                self.feed.give_back()
                record = plain
            if not record or (len(record) == 1 and not record[0].strip()):
                continue  # a blank line
            self.table.rows += 1
            if len(record) != width:
                reason = f"{len(record)} cells where the header has {width}{self._advice(''.join(record))}"
                shown = ("," if self.delimiter == UNIT else self.delimiter).join(record)
                self.rejects.add(start, "", shown, reason)
            elif any("\0" in cell for cell in record):
                column = next(c for c, cell in zip(self.columns, record, strict=True) if "\0" in cell)
                self.rejects.add(start, column, "", "contains a NUL byte")
            else:
                lines.append(start)
                records.append([record[i] for i in where])
        cells = zip(*records, strict=True) if records else ([] for _ in names)
        data = {name: pl.Series(column, dtype=pl.String) for name, column in zip(names, cells, strict=True)}
        frame = pl.DataFrame({"line": pl.Series(lines, dtype=pl.Int64), **data})
        frame = frame.with_columns(pl.col(names).str.replace(_TEXT_FORMULA, "$1"))
        if self.delimiter == UNIT:  # one inside quotes
            frame = frame.with_columns(pl.col(names).str.replace_all(UNIT, "::", literal=True))
        return frame.with_columns(pl.when(~pl.col(names).is_in(["", *NOTHING])).then(pl.col(names)))

    def _advice(self, text: str) -> str:
        """What is added to a complaint about a row that may be meant otherwise."""
        if self.escaped or "\\" not in text:
            return ""
        return ": if backslashes escape what follows, import it with --backslashes"

    def _reject_broken(self, start: int, first: str, problem: str) -> None:
        """``first``: the line of the file that the record begins in, ``start`` its number."""
        end = self.feed.line - 1
        advice = self._advice(first).removeprefix(": ") or None
        if problem == "unexpected end of data":
            raise UserError(f"{self.name}, line {start}: a quote opens in this record and never closes", advice)
        if problem.startswith("new-line character"):
            problem = "a carriage return ends a line in the middle of the row"
        if problem.startswith("field larger than") and '"' not in first:
            problem = f"a cell has more than {LONGEST_CELL:,} characters"
        if problem.startswith("field larger than"):
            raise UserError(
                f"{self.name}, line {start}: a quote opens in this record and does not close "
                f"within {LONGEST_CELL:,} characters",
                advice,
            )
        if end > start:
            raise UserError(
                f"{self.name}, line {start}: a quote opens in this record and closes only on line {end}, "
                "in the middle of a cell",
                advice,
            )
        self.table.rows += 1
        self.rejects.add(start, "", "", f"not CSV: {problem}{self._advice(first)}")
