"""The quote packets of one symbol and hour: when each leaves and which keys it carries.

Keys follow the captures: ``lp_time`` with every trade, ``lp`` and ``ch`` when the price changed,
``chp`` when its two decimals did, ``volume`` usually, sometimes only with the next packet; bid and
ask in packets of their own. The day turns with the first packet after 00:00 UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .instruments import Instrument
from .noise import Floats, key_of, uniform
from .tape import MINUTE_US, SECOND_US, Book, Ints, Steps, changes_per_step


@dataclass(frozen=True, slots=True)
class Before:
    """What was known when an hour began. None: never traded, or not in this day."""

    last: int | None  # the last price, in ticks
    prev_close: int | None  # of the day the hour lies in
    day: Day | None


@dataclass(frozen=True, slots=True)
class Day:
    """The daily bar as far as it goes, in ticks and lots."""

    open: int
    high: int
    low: int
    lots: int


@dataclass(frozen=True, slots=True)
class TradePackets:
    """One row per packet; *at* (epoch µs) is a list because it is bisected often."""

    at: list[int]
    lp_time: Ints
    ticks: Ints
    volume: Floats
    tells_volume: NDArray[np.bool_]
    high: Ints
    low: Ints
    day_open: int
    prev_close: int
    before: Before

    def changed(self, row: int, scale: int) -> dict[str, Any]:
        """Return the fields that differ from the packet before."""
        if row > 0:
            last, high, low = self.ticks[row - 1], self.high[row - 1], self.low[row - 1]
        elif self.before.day is not None:
            last, high, low = self.before.last, self.before.day.high, self.before.day.low
        else:  # a new day: everything but a price that stayed
            known = self.known(row, scale)
            if self.ticks[row] == self.before.last:
                del known["lp"]
            return known
        ticks = int(self.ticks[row])
        values: dict[str, Any] = {}
        if self.tells_volume[row]:
            values["volume"] = float(self.volume[row])
        values["lp_time"] = int(self.lp_time[row])
        if ticks != last:
            values["lp"] = ticks / scale
            if (chp := percent(ticks, self.prev_close)) != percent(last, self.prev_close):
                values["chp"] = chp
            values["ch"] = (ticks - self.prev_close) / scale
        if self.high[row] != high:
            values["high_price"] = int(self.high[row]) / scale
        if self.low[row] != low:
            values["low_price"] = int(self.low[row]) / scale
        return values

    def known(self, row: int, scale: int) -> dict[str, Any]:
        """Return every field as told up to and with *row*."""
        told = row
        while not self.tells_volume[told]:  # row 0 always tells
            told -= 1
        ticks = int(self.ticks[row])
        return {
            "volume": float(self.volume[told]),
            "lp_time": int(self.lp_time[row]),
            "lp": ticks / scale,
            "chp": percent(ticks, self.prev_close),
            "ch": (ticks - self.prev_close) / scale,
        } | self._day_fields(row, scale)

    def _day_fields(self, row: int, scale: int) -> dict[str, Any]:
        return {
            "open_price": self.day_open / scale,
            "high_price": int(self.high[row]) / scale,
            "low_price": int(self.low[row]) / scale,
            "prev_close_price": self.prev_close / scale,
            "open_time": int(self.lp_time[row]) // 86_400 * 86_400,
        }


@dataclass(frozen=True, slots=True)
class BookPackets:
    at: list[int]
    book: Book

    def changed(self, row: int, instrument: Instrument) -> dict[str, Any]:
        """Return what differs from the packet before; the first of an hour says everything."""
        known = self.known(row, instrument)
        if row == 0:
            return known
        before = self.known(row - 1, instrument)
        return {name: value for name, value in known.items() if value != before[name]}

    def known(self, row: int, instrument: Instrument) -> dict[str, Any]:
        book = self.book
        return {
            "ask": int(book.ask[row]) / instrument.price_scale,
            "ask_size": int(book.ask_lots[row]) / instrument.size_scale,
            "bid": int(book.bid[row]) / instrument.price_scale,
            "bid_size": int(book.bid_lots[row]) / instrument.size_scale,
        }


def trade_packets(
    instrument: Instrument,
    steps: Steps,
    counted: Ints,
    before: Before,
    *,
    interval: int,
    late_volume: float,
) -> TradePackets:
    """Return one packet for each of *steps*; *counted* is the counter in lots at their ends."""
    assert len(steps)
    day = before.day
    high, low = np.maximum.accumulate(steps.high), np.minimum.accumulate(steps.low)
    if day is not None:
        high, low = np.maximum(high, day.high), np.minimum(low, day.low)
    day_open = day.open if day is not None else int(steps.open[0])
    prev_close = before.prev_close if before.prev_close is not None else day_open
    return TradePackets(
        at=_sent_at(instrument, "trade", steps.time, interval),
        lp_time=steps.last // SECOND_US,
        ticks=steps.close,
        volume=counted / instrument.size_scale,
        tells_volume=~_holds_volume(instrument, steps.time, late_volume),
        high=high,
        low=low,
        day_open=day_open,
        prev_close=prev_close,
        before=before,
    )


def book_packets(instrument: Instrument, book: Book, *, interval: int) -> BookPackets:
    slots, last = changes_per_step(book, interval)
    return BookPackets(_sent_at(instrument, "book", slots, interval), last)


def percent(ticks: int, prev_close: int) -> float:
    """Return the change from *prev_close* in percent, with the feed's two decimals."""
    return round(100.0 * (int(ticks) - prev_close) / prev_close, 2)


def _sent_at(instrument: Instrument, what: str, slots: Ints, interval: int) -> list[int]:
    """Return when packets leave: a delay of the symbol and a jitter, never out of order."""
    key = key_of(instrument.name, what)
    share = min(1.0, interval / SECOND_US)
    delay = int((50_000 + key % 350_000) * share)
    jitter = (uniform(key, slots) * 150_000 * share).astype(np.int64)
    at: list[int] = (slots + interval + delay + jitter).tolist()
    return at


def _holds_volume(instrument: Instrument, slots: Ints, share: float) -> NDArray[np.bool_]:
    """Say which packets leave their volume to the next one, soon and in the same minute.

    Minutes stay exact this way, and so does the day; the first packet of an hour always tells, so
    that an hour can be understood without the one before.
    """
    after = np.append(slots[1:], np.int64(1 << 62))
    near = (after - slots <= 3 * SECOND_US) & (after // MINUTE_US == slots // MINUTE_US)
    held: NDArray[np.bool_] = near & (uniform(key_of(instrument.name, "held"), slots) < share)
    held[0] = False
    return held
