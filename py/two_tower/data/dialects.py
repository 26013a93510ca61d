"""How a CSV is written, as its first rows show: whether backslashes escape, and whether each row begins with a name."""

from __future__ import annotations

import csv
import io
import re
import string
from collections.abc import Iterable, Iterator

SAMPLE_LINES = 2_000
"""Lines from which it is told."""

DELIMITER = r"[\x01-\x09\x0b\x0c\x0e-!#-\x7e]|::"
"""A pattern of what can separate cells."""

UNIT = "\x1f"
"""ASCII's unit separator, which replaces a delimiter of several characters."""


def csv_records(lines: Iterable[str], delimiter: str, *, strict: bool = False) -> Iterator[list[str]]:
    """The csv module's records. Spaces before a cell are skipped, unless they separate cells."""
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter != " ", strict=strict)


def unnamed_cell(header: str, lines: list[str], delimiter: str, width: int) -> int | None:
    """The place of the cell that the first rows have and the header does not name: 0, of row names as R's
    ``write.table`` writes them, or ``width``, after a delimiter at the end; None where the rows fit the header, or may
    hold a delimiter in a text that is not quoted."""
    sample = "".join(lines[:SAMPLE_LINES])
    longer = _whole_rows(sample, delimiter, width + 1)
    if not longer or _whole_rows(sample, delimiter, width):
        return None
    if not any(row[-1] for row in longer):
        return width
    certain = delimiter == "\t" or (header.startswith('"') and lines[0].startswith('"'))
    names = {row[0] for row in longer}
    return 0 if certain and len(names) == len(longer) and "" not in names else None


_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_MEANT = {b"n": "\n", b"t": "\t", b"r": "\r", b"b": "\b", b"Z": "\x1a"}
_MEANT |= {sign.encode(): sign for sign in ("\n", "\t", UNIT, *string.punctuation)}
"""What follows a backslash → what both mean, as MySQL and PostgreSQL write them; anything else means itself."""
_NONCHARACTERS = (*range(0xFDD0, 0xFDF0), *(plane << 16 | 0xFFFE for plane in range(1, 17)))
_MARKS = {each: chr(mark).encode() for each, mark in zip(_MEANT, _NONCHARACTERS, strict=False)}
"""What stands for them while lines and cells are told; Unicode has these for the inside of programs."""
UNMARKED = {_MARKS[each].decode(): meant for each, meant in _MEANT.items()}
MARKED_LINE = _MARKS[b"\n"]
_NO_MARKS = {b"N": b"\\N", b"0": b"\0"}
"""Of nothing, and of a byte that no text may hold, readers of cells say what they say elsewhere."""


def unescaped(block: bytes) -> bytes:
    """Lines in which each backslash and what follows it are one character."""
    return _ESCAPE.sub(lambda found: _MARKS.get(found[1]) or _NO_MARKS.get(found[1], found[1]), block)


def is_escaped(lines: list[str], delimiter: str, width: int) -> bool:
    """Whether more of the first rows have ``width`` cells if a backslash escapes what follows it; or as many, and
    either each quote in a cell has a backslash before it, or nothing is written as ``\\N``, and backslashes are
    before nothing but what is escaped, as dumps have them."""
    sample = "".join(lines[:SAMPLE_LINES])
    if "\\" not in sample:
        return False
    plain, escaped = (_whole_rows(text, delimiter, width) for text in (sample, unescaped(sample.encode()).decode()))
    if len(plain) != len(escaped):
        return len(escaped) > len(plain)
    cells = [cell for record in plain for cell in record]
    quotes = sum(cell.count('"') for cell in cells)
    if quotes and quotes == sum(cell.count('\\"') for cell in cells):
        return True
    is_dump = "\\N" in cells and not any(cell.startswith('"') for line in lines for cell in line.split(delimiter))
    return is_dump and all(found[1] in {*_MARKS, *_NO_MARKS} for found in _ESCAPE.finditer(sample.encode()))


def _whole_rows(text: str, delimiter: str, width: int) -> list[list[str]]:
    """Records that have ``width`` cells."""
    reader = csv_records(io.StringIO(text, newline="\n"), delimiter, strict=True)
    rows = []
    while True:
        try:
            if len(record := next(reader)) == width:
                rows.append(record)
        except csv.Error:
            continue
        except StopIteration:
            return rows
