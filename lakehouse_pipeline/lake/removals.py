"""Where rows were taken away, and by which commit: what no file that is left can tell.

A reader of what is new, and a writer who looks whether somebody was faster, go by the files with a
greater sequence number. A rebuild that ends with fewer rows, or none, leaves no such file where the
others were. So each overwrite notes where it took rows away, in a property of each exchange.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from lakehouse_pipeline.market.windows import TimeWindow

# They are in each of the table's metadata files. Of older ones only the span of all is known.
REMOVALS_KEPT = 32
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Removals:
    """Windows in which rows were taken away, by the sequence number of the commit, oldest first."""

    windows: tuple[tuple[int, TimeWindow], ...] = ()

    def since(self, sequence: int) -> list[TimeWindow]:
        """Return where rows were taken away after *sequence*; more if that is long ago."""
        return [window for at, window in self.windows if at > sequence]

    def noting(self, sequence: int, window: TimeWindow, *, kept: int = REMOVALS_KEPT) -> Self:
        """Return these and *window*; beyond *kept* the two oldest become one that spans both."""
        # Who asks for an older one within it is told of the newer anyway.
        others = [each for each in self.windows if not _covers(window, each[1])]
        windows = [*others, (sequence, window)]
        while len(windows) > kept:
            (_, first), (at, second), *rest = windows
            windows = [(at, _hull(first, second)), *rest]
        return type(self)(tuple(windows))

    def dump(self) -> str:
        edges = [(at, _number(each.start), _number(each.end)) for at, each in self.windows]
        return json.dumps(edges, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str | None) -> Self:
        return cls(
            tuple(
                (at, TimeWindow(EPOCH + start * MICROSECOND, EPOCH + end * MICROSECOND))
                for at, start, end in json.loads(text or "[]")
            )
        )

    @classmethod
    def of(cls, properties: Mapping[str, str], exchange: str) -> Self:
        """Return what the properties of a table say of *exchange*."""
        return cls.parse(properties.get(removals_key(exchange)))


def removals_key(exchange: str) -> str:
    return f"removed.{exchange}"


def _covers(outer: TimeWindow, inner: TimeWindow) -> bool:
    return outer.start <= inner.start and inner.end <= outer.end


def _hull(first: TimeWindow, second: TimeWindow) -> TimeWindow:
    return TimeWindow(min(first.start, second.start), max(first.end, second.end))


def _number(instant: datetime) -> int:
    return (instant - EPOCH) // MICROSECOND
