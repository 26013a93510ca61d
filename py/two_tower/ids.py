"""Ids as texts, and those of users as UUIDs: UUIDs as they are, any other id mapped to a UUID."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from uuid import UUID

import numpy as np
import polars as pl

NAMESPACE = UUID("435f4783-935e-41f2-9795-93e447e07668")
"""Namespace of the UUIDv5 for an id that is not a UUID. Changing it would change everybody's id."""

UUID_PATTERN = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"

UUID_BYTES = np.dtype("V16")

INVISIBLE = "[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
"""Regular expression: soft hyphens, spaces of no width, marks of byte order and of direction. Nobody sees them in an id
or a name. What joins letters or selects their form (U+200C, U+200D, U+FE0F) is seen."""


def visible(texts: pl.Series) -> pl.Series:
    """Texts without what is :data:`INVISIBLE`, trimmed; null where nothing is left."""
    if not (texts.str.len_bytes() != texts.str.len_chars()).any():  # only ASCII
        return texts
    return texts.str.replace_all(INVISIBLE, "").str.strip_chars().replace("", None)


def user_uuid(text: str) -> UUID:
    """The UUID of a user's or reviewer's id: itself if it is written 8-4-4-4-12, else a UUIDv5 of its visible text."""
    text = re.sub(INVISIBLE, "", text).strip()
    return UUID(text) if re.match(UUID_PATTERN, text) else UUID(bytes=_digest(text), version=5)


def user_uuids(texts: pl.Series) -> np.ndarray:
    """``user_uuid`` of every text, all :func:`visible`, as an array of ``UUID_BYTES`` of the same length."""
    if texts.str.contains(UUID_PATTERN).all():
        return uuid_bytes(texts)
    distinct = texts.unique()
    own = distinct.str.contains(UUID_PATTERN)
    made = np.empty(len(distinct), UUID_BYTES)
    made[own.to_numpy()] = uuid_bytes(distinct.filter(own))
    digests = np.frombuffer(bytearray().join(map(_digest, distinct.filter(~own))), np.uint8).reshape(-1, 16)
    digests[:, 6] = digests[:, 6] & 0x0F | 0x50  # version 5
    digests[:, 8] = digests[:, 8] & 0x3F | 0x80  # variant of RFC 9562
    made[~own.to_numpy()] = digests.reshape(-1).view(UUID_BYTES)
    return made[texts.replace_strict(distinct, pl.int_range(len(distinct), eager=True)).to_numpy()]


def uuid_bytes(texts: pl.Series) -> np.ndarray:
    """UUIDs written 8-4-4-4-12, none null, as an array of ``UUID_BYTES``."""
    digits = texts.str.replace_all("-", "", literal=True).str.join("").item()
    return np.frombuffer(bytes.fromhex(digits), UUID_BYTES)


def _digest(text: str) -> bytes:
    # In NFC, as letters that programs encode in two ways are one letter to everybody.
    name = unicodedata.normalize("NFC", text).encode()
    return hashlib.sha1(NAMESPACE.bytes + name, usedforsecurity=False).digest()[:16]
