"""Seeded noise that can be asked at any instant, in any order.

Hash noise instead of a generator's stream: the value at a time depends on the seed and the time
alone, so a market can be entered anywhere without being played from the beginning.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def key_of(*parts: object) -> int:
    """Return a 32-bit number for *parts*, the same in every process."""
    return zlib.crc32("\x1f".join(map(str, parts)).encode())


def uniform(key: int, index: NDArray[np.int64]) -> Floats:
    """Return a number in [0, 1) for each *index* (splitmix64 of key and index)."""
    with np.errstate(over="ignore"):
        z = index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z ^= np.uint64(key) * np.uint64(0xD1B54A32D192ED03)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def smooth(key: int, time: NDArray[np.int64], period: int) -> Floats:
    """Return a smooth curve in [-1, 1) at *time* (ascending); it turns about once a *period*."""
    if not len(time):
        return np.empty(0)
    index = time // period
    first = int(index[0])
    knots = 2.0 * uniform(key, np.arange(first, int(index[-1]) + 2, dtype=np.int64)) - 1.0
    place = index - first
    x = (time - index * period) / period
    before = knots[place]
    value: Floats = before + (knots[place + 1] - before) * (x * x * (3.0 - 2.0 * x))
    return value


def struck(share: float, *about: object) -> bool:
    """Say whether chance strikes *about*, as it does a *share* of all there is."""
    return key_of(*about) % 10_000 < share * 10_000
