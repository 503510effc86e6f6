"""How often one symbol speaks, learnt from itself, and when its silence is out of character.

A fixed limit alarms on every quiet pair and misses a frozen busy one. Trades come in bursts, so
the limit is far out: twenty mean intervals, three times the longest silence seen lately, and never
less than a minute.
"""

from __future__ import annotations

MINUTE = 60_000_000  # µs
ENOUGH = 20  # intervals before there is a habit to speak of
SETTLED = 256  # intervals after which the mean moves at a fixed pace
MEMORY = 1 / SETTLED  # weight of the newest interval; older silences fade at the same pace
FADING = 1 - MEMORY


class Cadence:
    """The intervals between the moments at which one symbol spoke, in microseconds."""

    __slots__ = ("_count", "_longest", "_mean")

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._longest = 0.0

    def learn(self, interval: int) -> None:
        """Take in the time between two moments."""
        self._count = count = self._count + 1
        self._mean += (interval - self._mean) * (MEMORY if count > SETTLED else 1 / count)
        faded = self._longest * FADING
        self._longest = max(interval, faded)

    def exceeded(self, silence: int) -> bool:
        """Tell whether *silence* is longer than this symbol would keep by itself."""
        if self._count < ENOUGH:
            return False
        return silence > max(MINUTE, 20 * self._mean, 3 * self._longest)
