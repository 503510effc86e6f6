"""Trades and best quotes as integer arrays, and how they are summed over steps of time.

Prices are ticks and sizes are lots, both integers, so that sums and differences are exact.
Times are epoch microseconds. What the feed makes of it is `ticker`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(instant: datetime) -> int:
    return (instant - EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


@dataclass(frozen=True, slots=True)
class Tape:
    """Trades in time order; *buy* says that the taker bought."""

    time: Ints
    ticks: Ints
    lots: Ints
    buy: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.time)

    def cut(self, start: int, end: int) -> Tape:
        """Return the trades in ``[start, end)``."""
        lo, hi = np.searchsorted(self.time, (start, end))
        return Tape(self.time[lo:hi], self.ticks[lo:hi], self.lots[lo:hi], self.buy[lo:hi])


@dataclass(frozen=True, slots=True)
class Book:
    """Best bid and ask in time order."""

    time: Ints
    bid: Ints
    bid_lots: Ints
    ask: Ints
    ask_lots: Ints

    def __len__(self) -> int:
        return len(self.time)

    def cut(self, start: int, end: int) -> Book:
        lo, hi = np.searchsorted(self.time, (start, end))
        return self.take(slice(lo, hi))

    def take(self, rows: slice | Ints) -> Book:
        return Book(
            self.time[rows],
            self.bid[rows],
            self.bid_lots[rows],
            self.ask[rows],
            self.ask_lots[rows],
        )


@dataclass(frozen=True, slots=True)
class Steps:
    """OHLCV of the steps in which something traded; *time* is their open time."""

    time: Ints
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    lots: Ints
    last: Ints  # time of the last trade

    def __len__(self) -> int:
        return len(self.time)


_NONE = np.empty(0, np.int64)
NO_TRADES = Tape(_NONE, _NONE, _NONE, np.empty(0, np.bool_))
NO_BOOK = Book(_NONE, _NONE, _NONE, _NONE, _NONE)
NO_STEPS = Steps(_NONE, _NONE, _NONE, _NONE, _NONE, _NONE, _NONE)


def sum_trades(tape: Tape, step: int) -> Steps:
    """Return *tape* summed over multiples of *step* microseconds."""
    if not len(tape):
        return NO_STEPS
    slot, starts, ends = _runs(tape.time, step)
    return Steps(
        time=slot,
        open=tape.ticks[starts],
        high=np.maximum.reduceat(tape.ticks, starts),
        low=np.minimum.reduceat(tape.ticks, starts),
        close=tape.ticks[ends - 1],
        lots=np.add.reduceat(tape.lots, starts),
        last=tape.time[ends - 1],
    )


def sum_steps(parts: list[Steps], step: int) -> Steps:
    """Return *parts*, which follow each other, summed over multiples of a longer *step*."""
    time = np.concatenate([part.time for part in parts] or [_NONE])
    if not len(time):
        return NO_STEPS
    slot, starts, ends = _runs(time, step)
    return Steps(
        time=slot,
        open=np.concatenate([part.open for part in parts])[starts],
        high=np.maximum.reduceat(np.concatenate([part.high for part in parts]), starts),
        low=np.minimum.reduceat(np.concatenate([part.low for part in parts]), starts),
        close=np.concatenate([part.close for part in parts])[ends - 1],
        lots=np.add.reduceat(np.concatenate([part.lots for part in parts]), starts),
        last=np.concatenate([part.last for part in parts])[ends - 1],
    )


def changes_per_step(book: Book, step: int) -> tuple[Ints, Book]:
    """Return the last entry of each step where it differs from the one before, and its step."""
    if not len(book):
        return _NONE, NO_BOOK
    slot, _, ends = _runs(book.time, step)
    last = book.take(ends - 1)
    fields = np.stack([last.bid, last.bid_lots, last.ask, last.ask_lots])
    changed = np.flatnonzero(np.any(np.diff(fields, prepend=-1) != 0, axis=0))
    return slot[changed], last.take(changed)


def _runs(time: Ints, step: int) -> tuple[Ints, Ints, Ints]:
    """Return the open time, first row and past-last row of each run within one step."""
    slot = time // step
    starts = np.flatnonzero(np.diff(slot, prepend=slot[0] - 1))
    ends = np.append(starts[1:], len(time))
    return slot[starts] * step, starts, ends
