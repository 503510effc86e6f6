"""Half-open UTC windows and their algebra.

Add here what is true of intervals alone. What a window means (covered, missed) belongs to
``coverage`` and ``gaps``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


@dataclass(frozen=True, order=True, slots=True)
class TimeWindow:
    """``[start, end)`` in aware UTC; never empty."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        assert self.start.tzinfo is not None
        assert self.end.tzinfo is not None
        assert self.start < self.end, f"window {self.start} .. {self.end} was empty"

    @classmethod
    def of_day(cls, day: date) -> TimeWindow:
        """Return the UTC day *day*."""
        start = datetime.combine(day, time(), tzinfo=UTC)
        return cls(start, start + DAY)

    @property
    def length(self) -> timedelta:
        return self.end - self.start

    def intersect(self, other: TimeWindow) -> TimeWindow | None:
        """Return the common part, or None."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return TimeWindow(start, end) if start < end else None

    def days(self) -> Iterator[date]:
        """Yield each UTC day the window touches, in order."""
        day = self.start.date()
        while TimeWindow.of_day(day).start < self.end:
            yield day
            day += DAY


def union(windows: Iterable[TimeWindow]) -> list[TimeWindow]:
    """Return the sorted disjoint windows that cover the same instants; touching ones merge."""
    ordered = sorted(windows)
    if len(ordered) < 2:  # most often, when coverage is put together
        return ordered
    merged: list[TimeWindow] = []
    for window in ordered:
        if merged and window.start <= merged[-1].end:
            last = merged[-1]
            merged[-1] = TimeWindow(last.start, max(last.end, window.end))
        else:
            merged.append(window)
    return merged


def intersect(a: Iterable[TimeWindow], b: Iterable[TimeWindow]) -> list[TimeWindow]:
    """Return the instants in both, sorted and disjoint."""
    left, right = union(a), union(b)
    if not left or not right:
        return []
    common: list[TimeWindow] = []
    i = j = 0
    while i < len(left) and j < len(right):
        part = left[i].intersect(right[j])
        if part is not None:
            common.append(part)
        if left[i].end <= right[j].end:
            i += 1
        else:
            j += 1
    return common


def subtract(windows: Iterable[TimeWindow], holes: Iterable[TimeWindow]) -> list[TimeWindow]:
    """Return the instants in *windows* and in none of *holes*, sorted and disjoint."""
    gaps, whole = union(holes), union(windows)
    if not gaps:
        return whole
    rest: list[TimeWindow] = []
    first = 0  # the first hole that may reach into this window or a later one
    for window in whole:
        start = window.start
        while first < len(gaps) and gaps[first].end <= start:
            first += 1
        for index in range(first, len(gaps)):
            hole = gaps[index]
            if hole.start >= window.end:
                break
            if hole.start > start:
                rest.append(TimeWindow(start, hole.start))
            start = hole.end
        if start < window.end:
            rest.append(TimeWindow(start, window.end))
    return rest


def floor(instant: datetime, step: timedelta) -> datetime:
    """Return the latest multiple of *step* since the epoch that is not after *instant*."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return instant - (instant - epoch) % step


def ceil(instant: datetime, step: timedelta) -> datetime:
    """Return the earliest multiple of *step* since the epoch that is not before *instant*."""
    floored = floor(instant, step)
    return floored if floored == instant else floored + step
