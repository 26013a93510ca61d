"""Lists that are written as one text: separated by vertical bars, or as programs write a list into a cell."""

from __future__ import annotations

import ast
import json
import re

import polars as pl

NO_LIST = 'begins as a list and is none: {a,"b c"}, ["a", "b c"] and a|b c are lists'
_CLOSES = {"[": "]", "{": "}", "(": ")"}
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_APART = re.compile(r"'(?:[^'\\]|\\.)*'(?=\s*[,\]])", re.DOTALL)
"""What DuckDB quotes among bare words, which may begin with an apostrophe."""
_BARE = re.compile(r"[^,\[\]{}\"]+")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_NO_ELEMENT = ("null", "none", "nan", "na", "<na>")


def split_lists(cells: pl.Series) -> pl.Series:
    """Lists of the texts that each text of ``cells``, trimmed, holds; null where one begins as a list and is none."""
    split = cells.str.split("|")
    bracketed = cells.str.contains(r"^(?:[\[{(]|c\([\"'])").fill_null(value=False)
    if not bracketed.any():
        return split
    different = cells.filter(bracketed).unique()
    lists = [read_list(text) for text in different]
    # No text of PostgreSQL holds these, which strings of JSON and Python can name.
    lists = [None if names and _UNSTORABLE.search("".join(names)) else names for names in lists]
    read = pl.DataFrame({"cell": different, "read": pl.Series(lists, dtype=pl.List(pl.String))})
    found = cells.set(~bracketed, None).to_frame("cell").join(read, on="cell", how="left", maintain_order="left")
    return split.zip_with(~bracketed, found["read"])


def read_list(text: str) -> list[str] | None:
    """The names of a text that begins with a bracket; None of a list that is cut off or nested.

    A list is in brackets from end to end: ``{a,"b c"}`` of PostgreSQL, ``["a", "b c"]`` of JSON, ``['a', "b's"]``,
    ``{'a', 'b'}`` and ``('a', 'b')`` of Python, ``['a' 'b']`` of numpy, ``c("a", "b")`` of R, ``[a, 'b, c']`` of
    DuckDB, ``[a, b c]`` of Trino, and of JSON and Python also objects with a name. Anything else, such as ``[Live] a``
    or ``(500) Days``, is split at ``|``.
    """
    written, text = text, text.removeprefix("c")  # R's c("a", "b")
    start = text[1:].lstrip()[:1]
    if text[0] == "[" and start == "{":
        return _named_objects(text)
    quoted = start in ("'", '"')
    if text[0] == "(" and not quoted:
        return [] if text == "()" else written.split("|")
    names: list[str] = []
    at, separated, closing = 1, True, _CLOSES[text[0]]
    while at < len(text) and text[at] != closing:
        if text[at].isspace() or text[at] == ",":
            separated |= text[at] == ","
            at += 1
            continue
        word = (
            _QUOTED.match(text, at) if quoted or text[at] == '"' else _APART.match(text, at) if text[0] == "[" else None
        )
        if word:  # numpy has no commas between its strings
            names.append(_unquoted(word[0]))
        elif separated and (word := _BARE.match(text, at)):
            names += [] if word[0].strip().lower() in _NO_ELEMENT else [word[0].strip()]
        else:
            break
        separated, at = False, word.end()
    if at == len(text) or text[at] != closing:
        return None if text[0] != "(" else written.split("|")
    return names if at == len(text) - 1 else written.split("|")


def _unquoted(text: str) -> str:
    """A string as JSON, Python or PostgreSQL quote it. Of a backslash that none of them knows, what follows it."""
    try:
        return str(json.loads(text)) if text[0] == '"' else str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)


def _named_objects(text: str) -> list[str] | None:
    """The field ``name`` of each of a list of objects, or its only text; None where one has neither."""
    for read in (json.loads, ast.literal_eval):
        try:
            objects = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        names = []
        for each in objects if isinstance(objects, list) else [None]:
            found = [value for value in each.values() if isinstance(value, str)] if isinstance(each, dict) else []
            name = each["name"] if isinstance(each, dict) and "name" in each else found[0] if len(found) == 1 else None
            if not isinstance(name, str):
                return None
            names.append(name)
        return names
    return None
