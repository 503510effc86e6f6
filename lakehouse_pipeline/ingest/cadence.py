"""How often one symbol speaks, learnt from itself, and when its silence is out of character.

A fixed limit alarms on every quiet pair and misses a frozen busy one. Trades come in bursts, so
the limit is far out: twenty mean intervals, three times the longest silence seen lately, and never
less than a minute.
"""

from __future__ import annotations

MINUTE = 60_000_000  # µs
ENOUGH = 30  # intervals before there is a habit to speak of
MEMORY = 1 / 256  # weight of the newest interval; older silences fade at the same pace


class Cadence:
    """The intervals between one symbol's updates, in microseconds."""

    __slots__ = ("_count", "_longest", "_mean")

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._longest = 0.0

    def learn(self, interval: int) -> None:
        """Take in the time between two updates."""
        self._count += 1
        weight = max(1 / self._count, MEMORY)
        self._mean += weight * (interval - self._mean)
        self._longest = max(interval, self._longest * (1 - MEMORY))

    def exceeded(self, silence: int) -> bool:
        """Tell whether *silence* is longer than this symbol would keep by itself."""
        if self._count < ENOUGH:
            return False
        return silence > max(MINUTE, 20 * self._mean, 3 * self._longest)
