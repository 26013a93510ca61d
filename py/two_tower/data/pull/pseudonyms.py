"""Replaces user ids by pseudonyms while rows are copied."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator

_REMEMBERED = 200_000
"""Users whose pseudonyms are cached."""

_HEADER = 19  # of a binary COPY: signature, flags, length of an extension


class Pseudonyms:
    """Maps user ids to pseudonyms under a key."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.known: dict[bytes, bytes] = {}

    def of(self, user: bytes) -> bytes:
        """The pseudonym of a user id, both of 16 bytes: HMAC-SHA256 under the key, as a UUID of version 8."""
        found = self.known.get(user)
        if found is None:
            made = bytearray(hmac.digest(self.key, user, "sha256")[:16])
            made[6] = made[6] & 0x0F | 0x80
            made[8] = made[8] & 0x3F | 0x80
            found = bytes(made)
            if len(self.known) >= _REMEMBERED:
                self.known.clear()
            self.known[user] = found
        return found

    def in_rows(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """A binary COPY with the first column of every row, an id, replaced."""
        buffer, begun = bytearray(), False
        for block in blocks:
            buffer += block
            if not begun and len(buffer) < _HEADER:
                continue
            at = 0 if begun else _HEADER
            begun = True
            while (end := _end_of_row(buffer, at)) is not None:
                if end - at > 2:  # otherwise it is the trailer
                    buffer[at + 6 : at + 22] = self.of(bytes(buffer[at + 6 : at + 22]))
                at = end
            yield bytes(buffer[:at])
            del buffer[:at]

    def fingerprint(self) -> str:
        """Distinguishes one key from another, and reveals nothing else of it."""
        return hmac.digest(self.key, b"two-tower pull", "sha256").hex()[:16]


def _end_of_row(buffer: bytearray, at: int) -> int | None:
    """End of the row of a binary COPY that begins at ``at``; None if it is incomplete."""
    if at + 2 > len(buffer):
        return None
    fields = int.from_bytes(buffer[at : at + 2], signed=True)
    at += 2
    for _ in range(max(fields, 0)):
        if at + 4 > len(buffer):
            return None
        at += 4 + max(int.from_bytes(buffer[at : at + 4], signed=True), 0)
    return at if at <= len(buffer) else None
