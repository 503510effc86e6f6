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
from lakehouse_pipeline.market.quotes import Kind, observes_price
from lakehouse_pipeline.market.spread import spreads
from lakehouse_pipeline.market.volume import TRADE_COLUMNS, Basis, Booking

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
    def among(cls, rows: pl.DataFrame, book: Callable[[pl.DataFrame], Booking]) -> Trades:
        """Return the price observations among *rows*, one line each, in canonical order.

        *book* returns what all rows but quotes did to their counters.
        """
        symbols = codes(rows["symbol"])
        touching = np.flatnonzero(bools(rows["kind"] != Kind.QUOTE))
        trades = rows.select(*TRADE_COLUMNS, "event_time", "last_price", "update_mode")
        if touching.size < rows.height:
            trades = trades[touching]
        booking = book(trades)
        observed = np.flatnonzero(bools(trades.select(observes_price()).to_series()))
        if observed.size < trades.height:
            restored = _restored_prices(trades, symbols[touching])
            trades, booking = trades[observed], booking.take(observed)
        else:
            restored = None
        at = touching[observed]
        happened = microseconds(trades["event_time"])
        symbol, price = symbols[at], floats(trades["last_price"])
        return cls(
            rows=rows,
            symbols=symbols,
            at=at,
            symbol=symbol,
            happened=happened,
            price=price,
            counts=_packed(trades["kind"]),
            prev_price=_previous(symbol, happened, price, restored),
            booking=booking,
            flags=_row_flags(trades, booking, happened),
        )


def _restored_prices(trades: pl.DataFrame, symbols: Ints) -> tuple[Ints, Ints, Floats]:
    """Return symbol, time and price of the restored states, in order."""
    known = (pl.col("kind") == Kind.RESTORE) & pl.col("last_price").is_not_null()
    at = np.flatnonzero(bools(trades.select(known).to_series()))
    restored = trades.select("event_time", "last_price")[at]
    return symbols[at], microseconds(restored["event_time"]), floats(restored["last_price"])


def _previous(
    symbol: Ints, happened: Ints, price: Floats, restored: tuple[Ints, Ints, Floats] | None
) -> Floats:
    """Return for each observation the last price known before its second."""
    previous = np.roll(price, 1)
    previous[changes(symbol)] = np.nan
    if restored is None or not restored[0].size or not symbol.size:
        return previous
    of, at, restored_price = restored
    origin = min(happened.min(), at.min())
    span = max(happened.max(), at.max()) - origin + 1
    following = np.searchsorted(symbol * span + happened - origin, of * span + at - origin)
    target = np.minimum(following, symbol.size - 1)
    second = happened[target] - happened[target] % SECOND_US
    fits = (following < symbol.size) & (symbol[target] == of) & (at < second)
    previous[target[fits]] = restored_price[fits]  # of several, the latest stays
    return previous


def _row_flags(trades: pl.DataFrame, booking: Booking, happened: Ints) -> Ints:
    delay = microseconds(trades["received_at"]) - happened
    low, high = _PLAUSIBLE_DELAY_US
    close = SECOND_US - happened % SECOND_US
    flags = np.where(booking.known, _VOLUME_KNOWN, 0)
    flags[(delay < low) | (delay > high)] |= Flag.CLOCK_SUSPECT
    flags[delay - close > _LATENESS_US] |= Flag.LATE
    flags[bools(trades["update_mode"].str.starts_with("delayed"))] |= Flag.DELAYED_FEED
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
        last = trades.at[_ends(starts, trades.at.size)]
        quotes = np.zeros(starts.size, dtype=np.int64)
        if trades.at.size < trades.rows.height:
            quotes, last = _beside(trades, symbol, second, last)
        state = trades.rows.select("bid", "ask")[last]
        bid, ask = floats(state["bid"]), floats(state["ask"])
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


def _beside(trades: Trades, symbol: Ints, second: Ints, last: Ints) -> tuple[Ints, Ints]:
    """Return per observed second its quote-only updates and the position of its last row."""
    observed = np.zeros(trades.rows.height, dtype=np.bool_)
    observed[trades.at] = True
    others = np.flatnonzero(~observed)
    then = microseconds(trades.rows["event_time"])[others] // SECOND_US
    origin = min(second.min(), then.min())
    span = max(second.max(), then.max()) - origin + 1
    keys = symbol * span + second - origin
    asked = trades.symbols[others] * span + then - origin
    index = np.minimum(np.searchsorted(keys, asked), keys.size - 1)
    inside = keys[index] == asked
    others, index = others[inside], index[inside]
    is_quote = bools(trades.rows["kind"] == Kind.QUOTE)[others]
    latest = last.copy()
    latest[index] = others  # rising, so the last of a second stays
    counts = np.bincount(index[is_quote], minlength=keys.size)
    return counts.astype(np.int64), np.maximum(last, latest)


def reduce(trades: Trades, seconds: Seconds, step: timedelta) -> pl.DataFrame:
    """Return one row per interval of *step*, closed or not, without state and coverage."""
    length = step // step.resolution
    opens = trades.happened - trades.happened % length
    starts = np.flatnonzero(changes(trades.symbol, opens))
    ends = _ends(starts, opens.size)
    seconds = seconds.over(starts)
    names = trades.rows.select("exchange", "symbol")[trades.at[starts]]
    booking = trades.booking
    volume = from_lots(np.add.reduceat(booking.booked, starts), booking.decimals[starts])
    basis = np.where(seconds.known, (seconds.flags & Flag.COUNTER_RESET) > 0, 2)
    counts = np.add.reduceat(trades.counts, starts)
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


def _packed(kind: pl.Series) -> Ints:
    packed = np.zeros(kind.len(), dtype=np.int64)
    for counted, shift in _SHIFT.items():
        packed += bools(kind == counted).astype(np.int64) << shift
    return packed


def _count(packed: Ints, kind: Kind) -> Ints:
    return (packed >> _SHIFT[kind]) & _COUNT


def _late(flags: Ints, starts: Ints) -> Ints:
    late = (flags & Flag.LATE) > 0
    if not late.any():
        return np.zeros(starts.size, dtype=np.int64)
    counts: Ints = np.add.reduceat(late, starts, dtype=np.int64)
    return counts


_BASES = pl.Series([Basis.COUNTER_DELTA.value, Basis.COUNTER_RESET.value, Basis.UNKNOWN.value])


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
