"""Finding distinct and repeated values among millions by their hashes."""

from __future__ import annotations

import numpy as np


class Distinct:
    """Counts distinct values among 64-bit hashes. Memory: 8 bytes per distinct value, and 32 MB."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []
        self.held = 0

    def add(self, hashes: np.ndarray) -> None:
        self.parts.append(np.unique(hashes))
        self.held += len(self.parts[-1])
        if self.held > 2 * len(self.parts[0]) + (1 << 22):
            self.held = self.count()

    def count(self) -> int:
        self.parts = [np.unique(np.concatenate(self.parts))] if self.parts else []
        return sum(map(len, self.parts))


class Repeats:
    """A Bloom filter that tells which 64-bit hashes came before. It takes a few new ones for old: one in 2,000 for ten
    million, one in 30 for a hundred million. Memory: 64 MB."""

    multipliers = (1, 0x9FB21C651E98DF25)

    def __init__(self) -> None:
        self.bits = np.zeros(1 << 26, np.uint8)

    def among(self, hashes: np.ndarray) -> np.ndarray:
        """Whether each came before, including earlier calls; remembers them."""
        repeated = np.ones(len(hashes), bool)
        for multiplier in self.multipliers:
            place = hashes * np.uint64(multiplier) >> np.uint64(35)
            byte, bit = place >> np.uint64(3), np.left_shift(1, place & np.uint64(7)).astype(np.uint8)
            repeated &= self.bits[byte] & bit > 0
            np.bitwise_or.at(self.bits, byte, bit)
        new = np.ones(len(hashes), bool)
        new[np.unique(hashes, return_index=True)[1]] = False
        return repeated | new


def hash_uuids(values: np.ndarray) -> np.ndarray:
    """64-bit hashes of UUIDs: two odd multipliers, and a third that spreads the result to the upper bits."""
    halves = values.view(np.uint64).reshape(-1, 2)
    mixed = halves[:, 0] * np.uint64(0x9E3779B97F4A7C15) ^ halves[:, 1] * np.uint64(0xC2B2AE3D27D4EB4F)
    return (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
