"""Reading tables from files: CSV, gzipped CSV, and Parquet, in batches and with bounded memory.

A batch is a polars frame with the requested columns and ``line``, the line of the file (the row, for Parquet) on which
a record starts. An unreadable file raises UserError; a bad record goes to the rejects.

CSV without quotes, the usual case of large files, is checked by counting delimiters and parsed by polars. A block
with a quote, a stray carriage return, or a row of the wrong width is parsed by the csv module instead: it says where.
"""

from __future__ import annotations

import gzip
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO, Any

import polars as pl

from two_tower.data.csv_file import blocks_of, open_csv
from two_tower.data.table import Rejects, Table, renamed_columns, require_columns
from two_tower.errors import UserError
from two_tower.progress import Say

PARQUET_ROWS = 100_000


def open_table(
    source: Path | str,
    rejects: Rejects,
    *,
    expected: set[str],
    renamed: Mapping[str, str] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    names: Sequence[str] = (),
    backslashes: bool | None = None,
    say: Say = lambda _: None,
) -> Table:
    """Opens ``source``, a path or ``-`` for standard input, whatever its format.

    ``expected`` names columns by which the delimiter is recognised. ``renamed`` maps columns of the file to names
    wanted here; ``names`` are the columns of a CSV without a header; ``backslashes``: whether they escape what follows
    in a CSV, else as its first rows show. Raises UserError if the file cannot be read, or
    is none of the formats.
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
        rename = dict(renamed or {})
        if magic.startswith(b"PAR1"):
            where = source
            if total is None:  # Parquet has its index at the end, which a pipe cannot seek to
                copy = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".parquet"))  # noqa: SIM115
                shutil.copyfileobj(buffered, copy)
                copy.flush()
                where = copy.name
            table = _open_parquet(name, Path(where), rejects, rename, expected)
        else:
            stream: io.BufferedIOBase = buffered
            if magic.startswith(b"\x1f\x8b"):
                stream = stack.enter_context(closing(gzip.GzipFile(fileobj=buffered)))
            blocks = blocks_of(name, stream, encoding, say)
            table = open_csv(name, blocks, rejects, expected, rename, delimiter, names, backslashes, say)
            table._position = lambda: counted.position
        table.total_bytes = total
        table._closing = stack.pop_all()
        return table
    finally:
        stack.close()


class _Counted(io.RawIOBase):
    """Counts the bytes read from a stream, which it does not close."""

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


@contextmanager
def parquet_errors(where: str) -> Iterator[None]:
    """Raises UserError if polars cannot read a Parquet file: it panics on some, and its panics are no Exception."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {where}: {error.strerror or error}") from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{where} is not a readable Parquet file: {reason}", "write it anew, or as CSV") from error


def _open_parquet(name: str, path: Path, rejects: Rejects, rename: Mapping[str, str], expected: set[str]) -> Table:
    with parquet_errors(name):
        scan = pl.scan_parquet(path, glob=False)  # a name with * or [1] is a name
        names = scan.collect_schema().names()
        total = scan.select(pl.len()).collect().item()
    require_columns(name, names, rename, expected)
    columns = renamed_columns(names, rename)
    original = dict(zip(columns, names, strict=True))
    table: Table

    def batches(wanted: list[str]) -> Iterator[pl.DataFrame]:
        for start in range(0, total, PARQUET_ROWS):
            with parquet_errors(f"{name}, after row {start},"):
                frame = scan.select(pl.col(original[c]).alias(c) for c in wanted).slice(start, PARQUET_ROWS).collect()
            frame = frame.with_columns(plain(name, frame[column]) for column in wanted)
            frame = frame.with_columns(pl.int_range(start + 1, start + 1 + len(frame), dtype=pl.Int64).alias("line"))
            table.rows += len(frame)
            yield _without_nul(frame, rejects).with_columns(pl.col(pl.String).replace("", None))

    size = path.stat().st_size
    table = Table(name, columns, None, batches, lambda: size * table.rows // max(total, 1))
    return table


def plain(name: str, cells: pl.Series) -> pl.Series:
    """A column of Parquet in one of the types that the cell readers know: bytes and categories as text, lists as lists
    of text.

    Raises UserError if its cells have several fields, so that it is unclear which one is meant.
    """
    kind = cells.dtype
    if kind.is_float():
        return cells.fill_nan(None)  # what pandas writes for an empty cell
    try:
        if kind == pl.Binary:
            return _text_or_uuids(cells)
        if isinstance(kind, pl.Categorical | pl.Enum | pl.Null):
            return cells.cast(pl.String)
        if isinstance(kind, pl.Struct) and len(kind.fields) == 1 and isinstance(kind.fields[0].dtype, pl.List):
            # A list as BigQuery writes it, and others that do not say to Parquet that it is one.
            return plain(name, cells.struct.field(kind.fields[0].name).alias(cells.name))
        if isinstance(kind, pl.Array):
            cells = cells.arr.to_list()
        if isinstance(kind, pl.List | pl.Array):
            inner = cells.dtype.inner  # type: ignore[attr-defined]
            if isinstance(inner, pl.Struct):
                fields = [field.name for field in inner.fields if isinstance(field.dtype, pl.String)]
                if "name" in fields or len(fields) == 1:
                    chosen = "name" if "name" in fields else fields[0]
                    return cells.list.eval(pl.element().struct.field(chosen))
            elif inner.is_float():
                return cells  # a vector, which would take ten times the memory as text
            elif not isinstance(inner, pl.List | pl.Array):
                return cells.cast(pl.List(pl.String))
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{name}, column {cells.name}: {str(error).splitlines()[0]}", "write it as text") from error
    if kind.is_nested() or isinstance(kind, pl.Object | pl.Duration):
        raise UserError(
            f"{name}: the column {cells.name} is of type {kind}, of which it cannot be told what is meant",
            "write it as text, as a list of texts, or as a list of structs with a field name",
        )
    return cells


def _text_or_uuids(cells: pl.Series) -> pl.Series:
    """Bytes as text: in UTF-8, or UUIDs in 16 bytes each, as Parquet stores them."""
    try:
        return cells.cast(pl.String)
    except pl.exceptions.PolarsError:
        if not (cells.drop_nulls().bin.size() == 16).all():
            raise
    return cells.bin.encode("hex").str.replace("^(.{8})(.{4})(.{4})(.{4})", "$1-$2-$3-$4-")


def _without_nul(frame: pl.DataFrame, rejects: Rejects) -> pl.DataFrame:
    for column, kind in frame.schema.items():
        if kind == pl.String:
            bad = pl.col(column).str.contains("\0", literal=True).fill_null(value=False)
            if (rows := frame.filter(bad)).height:
                rejects.add_rows(rows.select("line", pl.lit("").alias("value")), column, "contains a NUL byte")
                frame = frame.filter(~bad)
    return frame
