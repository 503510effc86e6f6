"""How often one symbol speaks, learnt from itself, and when its silence is out of character.

A fixed limit alarms on every quiet pair and misses a frozen busy one. Trades come in bursts: the
mean interval says little of how long a market may pause. So the pauses are learnt by themselves,
and as long ones are about exponential, one of fourteen mean lengths comes once in a million.
"""

from __future__ import annotations

SECOND = 1_000_000  # µs
MINUTE = 60 * SECOND
ENOUGH = 20  # intervals, and
SEASONED = 5 * MINUTE  # of watching, before there is a habit to speak of
PAUSE = 20 * SECOND  # an interval longer than this is a pause, not the rhythm of a busy minute
SETTLED = 256  # intervals after which a mean moves at a fixed pace
SHORTEST = MINUTE  # no silence up to this is out of anybody's character
LOOK_EVERY = 3 * SECOND  # what a symbol says between two looks is one moment


class Cadence:
    """The intervals between the moments at which one symbol spoke, in microseconds."""

    __slots__ = ("_age", "_count", "_mean", "_pause", "_pauses")

    def __init__(self) -> None:
        self._age = 0
        self._count = 0
        self._mean = 0.0
        self._pauses = 0
        self._pause = 0.0

    def learn(self, interval: int) -> None:
        """Take in the time between two moments."""
        self._age += interval
        if self._count < SETTLED:
            self._count += 1
        self._mean += (interval - self._mean) / self._count
        if interval > PAUSE:
            self._pauses = min(self._pauses + 1, SETTLED)
            self._pause += (interval - self._pause) / self._pauses

    def exceeded(self, silence: int) -> bool:
        """Tell whether *silence* is longer than this symbol would keep by itself."""
        if self._count < ENOUGH or self._age < SEASONED:
            return False
        return silence > max(20 * self._mean, SHORTEST + 14 * self._pause)
