"""Ids of users: the application's UUIDs as they are, any other id as a UUID of its own."""

from __future__ import annotations

import hashlib
import re
from uuid import UUID

import numpy as np
import polars as pl

NAMESPACE = UUID("435f4783-935e-41f2-9795-93e447e07668")
"""Namespace of the UUIDv5 that stands for an id which is not a UUID. Changing it changes who everybody is."""

UUID_PATTERN = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"

UUID_BYTES = np.dtype("V16")


def user_uuid(text: str) -> UUID:
    """The UUID of a user's or reviewer's id: itself if it is written 8-4-4-4-12, else a UUIDv5 of the trimmed text."""
    text = text.strip()
    return UUID(text) if re.match(UUID_PATTERN, text) else UUID(bytes=_digest(text), version=5)


def user_uuids(texts: pl.Series) -> np.ndarray:
    """``user_uuid`` of every text, none null and all trimmed, as an array of ``UUID_BYTES`` of the same length."""
    foreign = ~texts.str.contains(UUID_PATTERN)
    if not foreign.any():
        return uuid_bytes(texts)
    distinct = texts.filter(foreign).unique()
    mapped = [str(UUID(bytes=_digest(text), version=5)) for text in distinct]
    return uuid_bytes(texts.replace(distinct, pl.Series(mapped, dtype=pl.String)))


def uuid_bytes(texts: pl.Series) -> np.ndarray:
    """UUIDs written 8-4-4-4-12, none null, as an array of ``UUID_BYTES``."""
    digits = texts.str.replace_all("-", "", literal=True).str.join("").item()
    return np.frombuffer(bytes.fromhex(digits), UUID_BYTES)


def _digest(text: str) -> bytes:
    return hashlib.sha1(NAMESPACE.bytes + text.encode(), usedforsecurity=False).digest()[:16]
