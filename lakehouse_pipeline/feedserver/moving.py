"""Whether recorded data keeps its time, and by how much it is moved otherwise."""

from __future__ import annotations

from datetime import datetime, timedelta

from .tape import SECOND_US, from_us, to_us

_SHORTLY = timedelta(days=1)


def shift(start: datetime | None, first: int, last: int) -> int:
    """Return by how many µs data recorded from *first* to *last* is moved for *start*.

    A start within the recorded time, or at most a day before it, keeps it; any other moves the data
    by whole seconds, so that it begins at *start*.
    """
    if start is None or from_us(first) - _SHORTLY <= start <= from_us(last):
        return 0
    return (to_us(start) // SECOND_US - first // SECOND_US) * SECOND_US
