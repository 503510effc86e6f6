"""A market over hours of trades: conflated quote packets, snapshots, bars and the tape.

Trades of one *interval* (a second) become one packet, sent shortly after the interval's end, so
a trade of second :05 arrives at about :06.2. Which keys a packet carries is `packets`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl

from .instruments import Instrument
from .market import MARKET_BARS, TAPE, Counter, Update
from .packets import (
    Before,
    BookPackets,
    Day,
    TradePackets,
    book_packets,
    trade_packets,
)
from .tape import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    NO_TRADES,
    SECOND_US,
    Book,
    Ints,
    Steps,
    Tape,
    from_us,
    sum_steps,
    sum_trades,
    to_us,
)

INTERVAL = timedelta(seconds=1)
LOOKBACK = 7 * 24  # hours in which a last price is looked for
DELAY_US = SECOND_US  # no packet leaves later than this after its interval


@dataclass(frozen=True, slots=True)
class Hour:
    """What happened in one hour."""

    tape: Tape
    book: Book


class TapeMarket:
    """A `Market`; *hour_of* is a pure function of a symbol and an hour since the epoch.

    *span* gives the hours of a symbol that can hold anything, *late_volume* the share of packets
    whose volume follows with the next one.
    """

    def __init__(
        self,
        instruments: Mapping[str, Instrument],
        hour_of: Callable[[str, int], Hour],
        *,
        span: Callable[[str], range],
        starts_at: datetime | None = None,
        interval: timedelta = INTERVAL,
        late_volume: float = 0.25,
    ) -> None:
        self.starts_at = starts_at
        self._instruments = instruments
        self._span = span
        self._interval = to_us(from_us(0) + interval)
        assert HOUR_US % self._interval == 0, "packets must not cross the hour"
        self._late_volume = late_volume
        # Sized for some 300 symbols: this hour, the next, and for rolling counters yesterday's.
        self._hour = lru_cache(maxsize=1_024)(hour_of)
        self._minutes = lru_cache(maxsize=65_536)(self._sum_minutes)
        self._before = lru_cache(maxsize=4_096)(self._find_before)
        self._trades = lru_cache(maxsize=768)(self._trade_packets)
        self._books = lru_cache(maxsize=768)(self._book_packets)

    def instruments(self) -> Mapping[str, Instrument]:
        return self._instruments

    def snapshot(self, symbol: str, at: datetime, counter: Counter) -> dict[str, Any]:
        now = to_us(at)
        static = self._instruments[symbol].quote_fields()
        return self._last_trade(symbol, now, counter) | static | self._last_book(symbol, now)

    def updates(
        self, symbol: str, since: datetime, until: datetime, counter: Counter
    ) -> list[Update]:
        start, end = to_us(since), to_us(until)
        instrument = self._instruments[symbol]
        found: list[tuple[int, dict[str, Any]]] = []
        for hour in self._hours(symbol, start - self._interval - DELAY_US, end):
            trades = self._trades(symbol, hour, counter)
            if trades is not None:
                rows = range(bisect_right(trades.at, start), bisect_right(trades.at, end))
                scale = instrument.price_scale
                found += [(trades.at[row], trades.changed(row, scale)) for row in rows]
            books = self._books(symbol, hour)
            rows = range(bisect_right(books.at, start), bisect_right(books.at, end))
            found += [(books.at[row], books.changed(row, instrument)) for row in rows]
        found.sort(key=lambda packet: packet[0])
        return [Update(from_us(at), values) for at, values in found]

    def bars(self, symbol: str, step: timedelta, start: datetime, end: datetime) -> pl.DataFrame:
        instrument = self._instruments[symbol]
        length = to_us(from_us(0) + step)
        bars = sum_steps(self._steps(symbol, length, to_us(start), to_us(end)), length)
        prices = {
            name: getattr(bars, name) / instrument.price_scale
            for name in ("open", "high", "low", "close")
        }
        volume = bars.lots / instrument.size_scale
        return pl.DataFrame({"open_time": bars.time, **prices, "volume": volume}).with_columns(
            pl.from_epoch("open_time", "us").cast(MARKET_BARS["open_time"])
        )

    def tape(self, symbol: str, start: datetime, end: datetime) -> pl.DataFrame:
        instrument = self._instruments[symbol]
        first, last = to_us(start), to_us(end)
        hours = self._hours(symbol, first, last - 1)
        parts = [self._hour(symbol, hour).tape.cut(first, last) for hour in hours] or [NO_TRADES]
        return pl.DataFrame(
            {
                "time": np.concatenate([part.time for part in parts]),
                "price": np.concatenate([part.ticks for part in parts]) / instrument.price_scale,
                "size": np.concatenate([part.lots for part in parts]) / instrument.size_scale,
                "side": np.where(np.concatenate([part.buy for part in parts]), "buy", "sell"),
            }
        ).with_columns(pl.from_epoch("time", "us").cast(TAPE["time"]), pl.col("side").cast(str))

    def _hours(self, symbol: str, first: int, last: int) -> range:
        """Return the hours that can hold anything between two instants, both inclusive."""
        span = self._span(symbol)
        return range(max(span.start, first // HOUR_US), min(span.stop, last // HOUR_US + 1))

    # Packets

    def _trade_packets(self, symbol: str, hour: int, counter: Counter) -> TradePackets | None:
        steps = sum_trades(self._hour(symbol, hour).tape, self._interval)
        if not len(steps):
            return None
        before = self._before(symbol, hour)
        counted = np.cumsum(steps.lots)
        if counter is Counter.SESSION:
            counted += before.day.lots if before.day is not None else 0
        else:
            counted += self._lots_of_last_day(symbol, hour, steps.time + self._interval)
        return trade_packets(
            self._instruments[symbol],
            steps,
            counted,
            before,
            interval=self._interval,
            late_volume=self._late_volume,
        )

    def _book_packets(self, symbol: str, hour: int) -> BookPackets:
        book = self._hour(symbol, hour).book
        return book_packets(self._instruments[symbol], book, interval=self._interval)

    def _lots_of_last_day(self, symbol: str, hour: int, ends: Ints) -> Ints:
        """Return the lots between *ends* less 24 hours and the beginning of *hour*."""
        day = sum(int(self._minutes(symbol, past).lots.sum()) for past in range(hour - 24, hour))
        oldest = self._hour(symbol, hour - 24).tape
        fallen_out = np.concatenate([[0], np.cumsum(oldest.lots)])
        kept: Ints = day - fallen_out[np.searchsorted(oldest.time, ends - DAY_US)]
        return kept

    def _last_trade(self, symbol: str, now: int, counter: Counter) -> dict[str, Any]:
        for hour in self._hours_back(symbol, now):
            packets = self._trades(symbol, hour, counter)
            if packets is not None and (row := bisect_right(packets.at, now) - 1) >= 0:
                return packets.known(row, self._instruments[symbol].price_scale)
        return {}

    def _last_book(self, symbol: str, now: int) -> dict[str, Any]:
        for hour in self._hours_back(symbol, now):
            packets = self._books(symbol, hour)
            if (row := bisect_right(packets.at, now) - 1) >= 0:
                return packets.known(row, self._instruments[symbol])
        return {}

    def _hours_back(self, symbol: str, now: int) -> Iterator[int]:
        return reversed(self._hours(symbol, now - LOOKBACK * HOUR_US, now))

    # Sums

    def _sum_minutes(self, symbol: str, hour: int) -> Steps:
        return sum_trades(self._hour(symbol, hour).tape, MINUTE_US)

    def _find_before(self, symbol: str, hour: int) -> Before:
        day_start = hour // 24 * 24
        prev_close = self._last_price(symbol, day_start)
        today = sum_steps([self._minutes(symbol, past) for past in range(day_start, hour)], DAY_US)
        if not len(today):
            return Before(last=prev_close, prev_close=prev_close, day=None)
        open_, high, low, close, lots = (
            int(getattr(today, name)[0]) for name in ("open", "high", "low", "close", "lots")
        )
        return Before(last=close, prev_close=prev_close, day=Day(open_, high, low, lots))

    def _last_price(self, symbol: str, hour: int) -> int | None:
        """Return the last price before *hour* in ticks."""
        for past in reversed(self._hours(symbol, (hour - LOOKBACK) * HOUR_US, hour * HOUR_US - 1)):
            minutes = self._minutes(symbol, past)
            if len(minutes):
                return int(minutes.close[-1])
        return None

    def _steps(self, symbol: str, step: int, start: int, end: int) -> list[Steps]:
        """Return the sums of ``[start, end)`` hour by hour, of minutes where they will do."""
        base = MINUTE_US if step % MINUTE_US == 0 else step
        parts = []
        for hour in self._hours(symbol, start, end - 1):
            opens, closes = hour * HOUR_US, (hour + 1) * HOUR_US
            if base == MINUTE_US and start <= opens and closes <= end:
                parts.append(self._minutes(symbol, hour))
            else:
                parts.append(sum_trades(self._hour(symbol, hour).tape.cut(start, end), base))
        return parts
