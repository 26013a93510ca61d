"""Detects the encoding of a text file that is not UTF-8.

Japanese is recognised by its kana: bytes of kana do not make readable text in any other encoding. Anything else only a
person can decide: the same bytes may be German or Polish. We tried charset-normalizer and chardet on titles of one line
in CP932, EUC-JP and CP1252; they took half of them for Big5, CP1250, Johab or Mac Cyrillic.
"""

from __future__ import annotations

import codecs
import re

JAPANESE = {"cp932": 0.1, "euc_jp": 0.25}
"""The share of kana above which text is Japanese. GBK has EUC-JP's kana, and Chinese brands sometimes use a の."""
CANDIDATES = (*JAPANESE, "cp1252")
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa\u30fc]")
_HALF_WIDTH = re.compile("[\uff66-\uff9f]{2,}")
_SHOWN = 12
"""Characters of decoded text that a message shows."""


def encoding_by_mark(start: bytes) -> str | None:
    """The encoding by a byte order mark, or by the zero bytes of UTF-16 without one."""
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(start) >= 8 and not any(start[1:8:2]) and all(start[0:8:2]):
        return "utf-16-le"
    if len(start) >= 8 and not any(start[0:8:2]) and all(start[1:8:2]):
        return "utf-16-be"
    return None


def japanese(data: bytes) -> str | None:
    """The encoding in which whole lines are Japanese beyond doubt: most non-ASCII characters are usual in Japanese, and
    some of them are kana."""
    for encoding, share in JAPANESE.items():
        other = _beyond_ascii(data, encoding)
        if other and len(_KANA.findall(other)) >= share * len(other) and _usual(other) >= 0.8 * len(other):
            return encoding
    return None


def readings(data: bytes) -> list[tuple[str, str]]:
    """Possible encodings of ``data``, likelier ones first, each with the first non-ASCII text as it would read."""
    found = []
    for encoding in CANDIDATES:
        other = _beyond_ascii(data, encoding)
        if other:
            text = data.decode(encoding)
            at = next(i for i, character in enumerate(text) if character > "\x7f")
            start = max(text.rfind(mark, 0, at) for mark in '\n,;\t|"') + 1
            shown = re.split(r"[\n,;\t|\"]", text[start:], maxsplit=1)[0][:_SHOWN].strip()
            likely = _usual(other) / len(other) if encoding in JAPANESE else 0.5
            found.append((likely, encoding, shown))
    return [(encoding, shown) for _, encoding, shown in sorted(found, key=lambda each: -each[0])]


def _beyond_ascii(data: bytes, encoding: str) -> str:
    """The characters that are not ASCII; none where ``data`` is not in ``encoding``."""
    try:
        return re.sub(r"[\x00-\x7f]+", " ", data.decode(encoding)).replace(" ", "")
    except UnicodeDecodeError:
        return ""


def _usual(text: str) -> int:
    """Characters that are kana, full-width symbols, kanji of everyday use, or consecutive half-width kana."""
    count = sum(map(len, _HALF_WIDTH.findall(text)))
    for character in text:
        try:
            coded = character.encode("cp932")
        except UnicodeEncodeError:
            continue
        # Rows of signs, full-width letters and kana; NEC's signs; kanji of level 1; IBM's kanji.
        count += len(coded) == 2 and (0x81 <= coded[0] <= 0x97 or coded[0] >= 0xFA)
    return count
