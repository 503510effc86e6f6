"""Which official bars a client gets: the depth of its plan, ranges, and what was left out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from .access import Plan
from .market import Market
from .resolution import Resolution

BLOCK = 500  # bars: the depth of a plan is cut at the next stored block beyond it


class Bar(NamedTuple):
    time: float  # epoch seconds of the open
    open: float
    high: float
    low: float
    close: float
    volume: float


@dataclass(frozen=True, slots=True)
class History:
    """*completed*: ``end`` when nothing older exists, ``limit`` when the plan ends, else None."""

    bars: list[Bar]
    completed: str | None


@dataclass(frozen=True, slots=True)
class Archive:
    """The bars of one symbol and resolution as known at *now*, for one plan."""

    market: Market
    symbol: str
    resolution: Resolution
    plan: Plan
    opens_at: datetime
    now: datetime

    def last(self, count: int, before: datetime) -> History:
        """Return up to *count* bars that open before *before*, oldest first."""
        floor, limited = self._floor(before - count * self.resolution.length)
        bars = self._last(count, before, floor)
        if len(bars) == count:
            return History(bars, None)
        return History(bars, "limit" if limited else "end")

    def first(self, count: int, after: datetime) -> History:
        """Return up to *count* bars that open at or after *after*, oldest first."""
        floor, _ = self._floor(after)
        return History(self.between(max(after, floor), self.now)[:count], None)

    def within(self, start: datetime, end: datetime) -> History:
        """Return the bars that open in ``[start, end]``."""
        floor, limited = self._floor(start)
        bars = self.between(max(start, floor), min(end + timedelta(seconds=1), self.now))
        if start >= floor:
            return History(bars, None)
        return History(bars, "limit" if limited else "end")

    def between(self, start: datetime, end: datetime) -> list[Bar]:
        """Return the bars that open in ``[start, end)``, complete except perhaps the forming."""
        return load_bars(
            self.market, self.symbol, self.resolution, start, min(self._close_of(end), self.now)
        )

    def _close_of(self, end: datetime) -> datetime:
        """Return the close of the last bar that opens before *end*."""
        return self.resolution.after(self.resolution.floor(end - timedelta(microseconds=1)))

    def _last(self, count: int, before: datetime, floor: datetime) -> list[Bar]:
        found: list[Bar] = []
        until, span = before, count * self.resolution.length
        while len(found) < count and until > floor:
            since = max(floor, self.resolution.floor(until - span))
            found = self.between(since, until) + found
            until, span = since, span * 2
        return found[-count:]

    def _floor(self, wanted: datetime) -> tuple[datetime, bool]:
        """Return the oldest open time given, and whether the plan rather than the market sets it.

        The plan's depth is worked out only when *wanted* may lie beyond it.
        """
        first = self.resolution.floor(self.opens_at)
        if wanted >= self.now - self.plan.bars * self.resolution.length:
            return first, False
        deepest = self._last(self.plan.bars, self.now, first)
        if len(deepest) < self.plan.bars:
            return first, False
        block = BLOCK * self.resolution.length
        oldest = datetime.fromtimestamp(deepest[0].time, UTC)
        reach = oldest - (oldest - datetime(1970, 1, 1, tzinfo=UTC)) % block
        return max(first, self.resolution.floor(reach)), reach > first


def load_bars(
    market: Market, symbol: str, resolution: Resolution, start: datetime, end: datetime
) -> list[Bar]:
    """Return the bars of *symbol* that open at or after *start*, of trades before *end*."""
    first = resolution.floor(start)
    first = first if first == start else resolution.after(first)
    if first >= end:
        return []
    frame = market.bars(symbol, resolution.step, first, end)
    times = frame["open_time"].dt.epoch("s").cast(float).to_list()
    rows = [
        Bar(*row) for row in zip(times, *frame.drop("open_time").to_dict().values(), strict=True)
    ]
    return _merge(rows, resolution) if resolution.unit in ("W", "M") else rows


def _merge(days: list[Bar], resolution: Resolution) -> list[Bar]:
    """Return *days* joined into weeks or months."""
    merged: list[Bar] = []
    for day in days:
        opened = resolution.floor(datetime.fromtimestamp(day.time, UTC)).timestamp()
        if merged and merged[-1].time == opened:
            bar = merged[-1]
            merged[-1] = Bar(
                opened,
                bar.open,
                max(bar.high, day.high),
                min(bar.low, day.low),
                day.close,
                bar.volume + day.volume,
            )
        else:
            merged.append(day._replace(time=opened))
    return merged
