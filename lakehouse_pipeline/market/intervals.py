"""The kernel of ``bars``: runs of rows in one interval, reduced to one row.

Rows come in canonical order, so an interval is a run of neighbors and its edges are where symbol
or time changes; numpy reduces between edges without hashing a key. Figures that are not simply
additive (counts of quotes, last bid and ask, spread) are taken per observed second, so that a
minute built here equals the roll-up of its seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from lakehouse_pipeline.market.arrays import (
    SECOND_US,
    Bools,
    Floats,
    Ints,
    bools,
    changes,
    codes,
    floats,
    microseconds,
)
from lakehouse_pipeline.market.coverage import LATENESS
from lakehouse_pipeline.market.decimals import from_lots
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.quotes import NUMBERS, OBSERVING, Kind
from lakehouse_pipeline.market.spread import spreads
from lakehouse_pipeline.market.volume import Basis, Booking, Updates

_LATENESS_US = LATENESS // LATENESS.resolution
_VOLUME_KNOWN = 1 << 30  # a bit of our own beside the stored flags
_PLAUSIBLE_DELAY_US = (-2 * SECOND_US, 10 * SECOND_US)


@dataclass(frozen=True, slots=True)
class Trades:
    """The price observations among *rows*, as arrays; ``at`` are their positions in *rows*."""

    rows: pl.DataFrame
    symbols: Ints  # of every row
    at: Ints
    symbol: Ints
    happened: Ints
    price: Floats
    counts: Ints  # of updates by kind, packed
    prev_price: Floats  # the last price known before the observation's second, or NaN
    booking: Booking  # of the observations only
    flags: Ints

    @classmethod
    def among(cls, rows: pl.DataFrame, book: Callable[[Updates], Booking]) -> Trades:
        """Return the price observations among *rows*, one line each, in canonical order.

        *book* returns what all rows but quotes did to their counters.
        """
        updates = Updates.among(rows)
        prices, happened = floats(rows["last_price"]), microseconds(rows["event_time"])
        priced = rows["last_price"].is_not_null().to_numpy()[updates.at]
        is_trade = np.isin(updates.kind, [NUMBERS[kind] for kind in OBSERVING])
        observed = np.flatnonzero(is_trade & priced)
        restored = updates.at[(updates.kind == NUMBERS[Kind.RESTORE]) & priced]
        booking, at = book(updates).take(observed), updates.at[observed]
        symbols = codes(rows["symbol"])
        symbol, price = symbols[at], prices[at]
        return cls(
            rows=rows,
            symbols=symbols,
            at=at,
            symbol=symbol,
            happened=happened[at],
            price=price,
            counts=_PACKED[updates.kind[observed]],
            prev_price=_previous(
                symbol, happened[at], price, symbols[restored], happened[restored], prices[restored]
            ),
            booking=booking,
            flags=_row_flags(rows, at, booking, happened[at], updates.received[observed]),
        )


def _previous(
    symbol: Ints, happened: Ints, price: Floats, of: Ints, at: Ints, restored: Floats
) -> Floats:
    """Return for each observation the last price known before its second.

    *of*, *at* and *restored* are symbol, time and price of the restored states, in order.
    """
    previous = np.roll(price, 1)
    previous[changes(symbol)] = np.nan
    if not of.size or not symbol.size:
        return previous
    origin = min(happened.min(), at.min())
    span = max(happened.max(), at.max()) - origin + 1
    following = np.searchsorted(symbol * span + happened - origin, of * span + at - origin)
    target = np.minimum(following, symbol.size - 1)
    second = happened[target] - happened[target] % SECOND_US
    fits = (following < symbol.size) & (symbol[target] == of) & (at < second)
    previous[target[fits]] = restored[fits]  # of several, the latest stays
    return previous


def _row_flags(
    rows: pl.DataFrame, at: Ints, booking: Booking, happened: Ints, received: Ints
) -> Ints:
    delay = received - happened
    low, high = _PLAUSIBLE_DELAY_US
    begun = happened // SECOND_US * SECOND_US
    flags = np.where(booking.known, _VOLUME_KNOWN, 0)
    flags[(delay < low) | (delay > high)] |= Flag.CLOCK_SUSPECT
    flags[received - begun > SECOND_US + _LATENESS_US] |= Flag.LATE
    flags[bools(rows["update_mode"].str.starts_with("delayed"))[at]] |= Flag.DELAYED_FEED
    flags[booking.reset] |= Flag.COUNTER_RESET
    flags[booking.fell] |= Flag.COUNTER_FELL
    flags[booking.spans_gap] |= Flag.SPANS_GAP
    return flags


@dataclass(frozen=True, slots=True)
class Seconds:
    """What is taken per observed second; ``starts`` are positions in the observations."""

    starts: Ints
    observed: Ints  # seconds in it: one, before they are put together
    quotes: Ints  # quote-only updates
    bid: Floats
    ask: Floats
    spread: Floats
    known: Bools  # some of the volume is known
    flags: Ints

    @classmethod
    def of(cls, trades: Trades) -> Seconds:
        """Return the observed seconds of *trades*, in order."""
        second = trades.happened // SECOND_US
        starts = np.flatnonzero(changes(trades.symbol, second))
        symbol, second = trades.symbol[starts], second[starts]
        quotes, last = _beside(trades, trades.at[starts])
        bid, ask = floats(trades.rows["bid"])[last], floats(trades.rows["ask"])[last]
        flags = np.bitwise_or.reduceat(trades.flags, starts)
        flags[bid > ask] |= Flag.CROSSED_QUOTE
        known = (flags & _VOLUME_KNOWN) > 0
        return cls(
            starts=starts,
            observed=np.ones(starts.size, dtype=np.int64),
            quotes=quotes,
            bid=bid,
            ask=ask,
            spread=spreads(trades.rows, trades.symbols, symbol, second),
            known=known,
            flags=np.where(known, flags & ~_VOLUME_KNOWN, flags | Flag.VOLUME_UNKNOWN),
        )

    def over(self, starts: Ints) -> Seconds:
        """Return the seconds put together to the intervals that begin at *starts*."""
        if starts.size == self.starts.size:
            return self
        first = np.searchsorted(self.starts, starts)
        last = _ends(first, self.starts.size)
        return Seconds(
            starts=starts,
            observed=last - first + 1,
            quotes=np.add.reduceat(self.quotes, first),
            bid=self.bid[last],
            ask=self.ask[last],
            spread=_mean(self.spread, first),
            known=np.logical_or.reduceat(self.known, first),
            flags=np.bitwise_or.reduceat(self.flags, first),
        )


def _beside(trades: Trades, observed: Ints) -> tuple[Ints, Ints]:
    """Return for each row at *observed* the quote-only updates and the last row of its second."""
    second = microseconds(trades.rows["event_time"]) // SECOND_US
    begins = changes(trades.symbols, second)
    starts = np.flatnonzero(begins)
    number = np.cumsum(begins)[observed] - 1
    first, last = starts[number], _ends(starts, second.size)[number]
    is_quote = bools(trades.rows["kind"] == Kind.QUOTE)
    quotes = np.cumsum(is_quote)
    return quotes[last] - quotes[first] + is_quote[first], last


def reduce(trades: Trades, seconds: Seconds, step: timedelta) -> pl.DataFrame:
    """Return one row per interval of *step*, closed or not, without state and coverage."""
    length = step // step.resolution
    opens = trades.happened // length * length
    starts = np.flatnonzero(changes(trades.symbol, opens))
    ends = _ends(starts, opens.size)
    seconds = seconds.over(starts)
    names = trades.rows.select("exchange", "symbol")[trades.at[starts]]
    booking = trades.booking
    volume = from_lots(_sums(booking.booked, starts, ends), booking.decimals[starts])
    basis = np.where(seconds.known, (seconds.flags & Flag.COUNTER_RESET) > 0, 2)
    counts = _sums(trades.counts, starts, ends)
    return pl.DataFrame(
        {
            "exchange": names["exchange"],
            "symbol": names["symbol"],
            "open_time": pl.Series(opens[starts]).cast(pl.Datetime("us", "UTC")),
            "open": trades.price[starts],
            "high": np.maximum.reduceat(trades.price, starts),
            "low": np.minimum.reduceat(trades.price, starts),
            "close": trades.price[ends],
            "prev_close": _nullable(trades.prev_price[starts]),
            "volume": _nullable(np.where(seconds.known, volume, np.nan)),
            "volume_basis": _BASES.gather(basis),
            "counter_start": _nullable(booking.before[starts]),
            "counter_end": _nullable(booking.after[ends]),
            "price_updates": _count(counts, Kind.PRICE),
            "volume_updates": _count(counts, Kind.VOLUME),
            "time_updates": _count(counts, Kind.TIME),
            "quote_updates": seconds.quotes,
            "late_updates": _late(trades.flags, starts),
            "bid": _nullable(seconds.bid),
            "ask": _nullable(seconds.ask),
            "spread": _nullable(seconds.spread),
            "observed_seconds": seconds.observed,
            "flags": seconds.flags,
        }
    )


# Three counts in one number, so that one sum adds them all; the liveliest symbol has half a
# million updates a day.
_COUNT = (1 << 20) - 1
_SHIFT = {Kind.PRICE: 0, Kind.VOLUME: 20, Kind.TIME: 40}
_PACKED = np.zeros(len(Kind) + 1, dtype=np.int64)  # of the kind's number
for _kind, _shift in _SHIFT.items():
    _PACKED[NUMBERS[_kind]] = 1 << _shift


def _count(packed: Ints, kind: Kind) -> Ints:
    return (packed >> _SHIFT[kind]) & _COUNT


def _late(flags: Ints, starts: Ints) -> Ints:
    late = (flags & Flag.LATE) > 0
    if not late.any():
        return np.zeros(starts.size, dtype=np.int64)
    counts: Ints = np.add.reduceat(late, starts, dtype=np.int64)
    return counts


_BASES = pl.Series([Basis.COUNTER_DELTA.value, Basis.COUNTER_RESET.value, Basis.UNKNOWN.value])


def _sums(values: Ints, starts: Ints, ends: Ints) -> Ints:
    """Return the sum of each run: whole numbers, so a difference of running totals is exact."""
    total: Ints = np.cumsum(values)
    return total[ends] - total[starts] + values[starts]


def _ends(starts: Ints, size: int) -> Ints:
    return np.append(starts[1:], size) - 1


def _mean(values: Floats, starts: Ints) -> Floats:
    """Return the mean of the known values of each run, NaN if there is none."""
    known = ~np.isnan(values)
    counts = np.add.reduceat(known, starts, dtype=np.int64)
    total = np.add.reduceat(np.where(known, values, 0.0), starts)
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)


def _nullable(values: Floats) -> pl.Series:
    return pl.Series(values).fill_nan(None)
