"""Output to terminals that are not UTF-8: characters that they lack are written in ASCII."""

from __future__ import annotations

import codecs
import sys
import unicodedata

ERRORS = "two_tower.plain"
_PLAIN = {"–": "-", "—": "-", "−": "-", "×": "x", "·": ".", "✓": "ok", "→": "->", "≥": ">=", "≤": "<=", "’": "'"}


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_in_ascii, error.object[error.start : error.end])), error.end


def _in_ascii(character: str) -> str:
    found = _PLAIN.get(character) or unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return found or character.encode("ascii", "backslashreplace").decode()


def settle() -> None:
    """Prevents standard output and standard error from failing on a character that their encoding lacks."""
    codecs.register_error(ERRORS, _plain)
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors=ERRORS)


def is_unicode() -> bool:
    """Whether the encoding of standard output has every character."""
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")
