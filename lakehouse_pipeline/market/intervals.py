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
import numpy.typing as npt
import polars as pl

from lakehouse_pipeline.market.arrays import (
    SECOND_US,
    Bools,
    Floats,
    Ints,
    bools,
    changes,
    floats,
    microseconds,
)
from lakehouse_pipeline.market.coverage import LATENESS
from lakehouse_pipeline.market.decimals import exact_sums
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.quotes import NUMBERS, OBSERVING, Kind
from lakehouse_pipeline.market.spread import spreads
from lakehouse_pipeline.market.volume import Basis, Booking, Updates

Counts = npt.NDArray[np.int32]

_LATENESS_US = LATENESS // LATENESS.resolution
_PLAUSIBLE_DELAY_US = (-2 * SECOND_US, 10 * SECOND_US)


@dataclass(frozen=True, slots=True)
class Trades:
    """The price observations among *updates*, as arrays; ``at`` are their positions in its rows."""

    updates: Updates
    booking: Booking  # of all updates
    among_updates: Ints  # their positions in both
    at: Ints
    symbol: Ints
    happened: Ints
    second: Ints
    price: Floats
    prev_price: Floats  # the last price known before the observation's second, or NaN
    flags: Ints

    @classmethod
    def among(cls, rows: pl.DataFrame, book: Callable[[Updates], Booking]) -> Trades:
        """Return the price observations among *rows*, one line each, in canonical order.

        *book* returns what all rows but quotes did to their counters.
        """
        updates = Updates.among(rows)
        prices, happened = floats(rows["last_price"]), microseconds(rows["event_time"])
        priced = rows["last_price"].is_not_null().to_numpy()[updates.at]
        observed = np.flatnonzero(_OBSERVING[updates.kind] & priced)
        restored = updates.at[(updates.kind == NUMBERS[Kind.RESTORE]) & priced]
        booking, at = book(updates), updates.at[observed]
        symbol, price, happened_then = updates.symbol[observed], prices[at], happened[at]
        second = happened_then // SECOND_US
        return cls(
            updates=updates,
            booking=booking,
            among_updates=observed,
            at=at,
            symbol=symbol,
            happened=happened_then,
            second=second,
            price=price,
            prev_price=_previous(
                symbol,
                happened_then,
                price,
                updates.received[observed],
                updates.symbols[restored],
                happened[restored],
                prices[restored],
            ),
            flags=_row_flags(updates, booking, observed, happened_then, second),
        )


def _previous(
    symbol: Ints,
    happened: Ints,
    price: Floats,
    received: Ints,
    of: Ints,
    at: Ints,
    restored: Floats,
) -> Floats:
    """Return for each observation the last price known before its second.

    *of*, *at* and *restored* are symbol, time and price of the restored states, in order. A trade
    received after a state is newer, though its whole second may begin before it.
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
    before = np.maximum(target - 1, 0)
    newer = (target > 0) & (symbol[before] == of) & (received[before] >= at)
    fits = (following < symbol.size) & (symbol[target] == of) & (at < second) & ~newer
    previous[target[fits]] = restored[fits]  # of several, the latest stays
    return previous


def _row_flags(
    updates: Updates, booking: Booking, observed: Ints, happened: Ints, second: Ints
) -> Ints:
    """Return the flags of each observation; on nearly every row of a good day they are zero."""
    received = updates.received[observed]
    delay = received - happened
    low, high = _PLAUSIBLE_DELAY_US
    flags = np.zeros(observed.size, dtype=np.int64)
    flags[(delay < low) | (delay > high)] |= Flag.CLOCK_SUSPECT
    flags[received - second * SECOND_US > SECOND_US + _LATENESS_US] |= Flag.LATE
    modes = updates.rows["update_mode"]
    if not (modes == "streaming").all():
        flags[bools(modes.str.starts_with("delayed"))[updates.at[observed]]] |= Flag.DELAYED_FEED
    for flag, rows in (
        (Flag.COUNTER_RESET, booking.reset),
        (Flag.COUNTER_FELL, booking.fell),
        (Flag.SPANS_GAP, booking.spans_gap),
    ):
        if rows.any():
            flags[rows[observed]] |= flag
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
        starts = np.flatnonzero(changes(trades.symbol, trades.second))
        symbol, second = trades.symbol[starts], trades.second[starts]
        rows = trades.updates.rows
        quotes, last = _beside(trades.updates, trades.at[_ends(starts, trades.at.size)])
        bid, ask = floats(rows["bid"])[last], floats(rows["ask"])[last]
        known = _any(trades.booking.known[trades.among_updates], starts)
        flags = _joined(trades.flags, starts)
        flags[bid > ask] |= Flag.CROSSED_QUOTE
        flags[~known] |= Flag.VOLUME_UNKNOWN
        return cls(
            starts=starts,
            observed=np.ones(starts.size, dtype=np.int64),
            quotes=quotes,
            bid=bid,
            ask=ask,
            spread=spreads(rows, trades.updates.symbols, symbol, second),
            known=known,
            flags=flags,
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
            known=_any(self.known, first),
            flags=_joined(self.flags, first),
        )


def _beside(updates: Updates, observed: Ints) -> tuple[Ints, Ints]:
    """Return the quote-only updates and the newest row of each second.

    *observed* are the last observations of these seconds. Quotes stand after them in their second
    whenever they were received, so the newest row is the later received of two.
    """
    second = microseconds(updates.rows["event_time"]) // SECOND_US
    begins = changes(updates.symbols, second)
    starts = np.flatnonzero(begins)
    number = np.cumsum(begins.astype(np.int64))[observed] - 1
    first, last = starts[number], _ends(starts, second.size)[number]
    is_quote = updates.kinds == NUMBERS[Kind.QUOTE]
    quotes = np.cumsum(is_quote.astype(np.int64))
    received = microseconds(updates.rows["received_at"])
    newest = np.where(received[observed] > received[last], observed, last)
    return quotes[last] - quotes[first] + is_quote[first], newest


def reduce(trades: Trades, seconds: Seconds, step: timedelta) -> pl.DataFrame:
    """Return one row per interval of *step*, closed or not, without state and coverage."""
    length = step // step.resolution
    opens = trades.happened // length * length
    starts = np.flatnonzero(changes(trades.symbol, opens))
    ends = _ends(starts, opens.size)
    seconds = seconds.over(starts)
    updates, booking, own = trades.updates, trades.booking, trades.among_updates
    first, last = own[starts], own[ends]
    names = updates.rows.select("exchange", "symbol")[trades.at[starts]]
    volume = exact_sums(booking.booked[own], booking.decimals[own], starts, ends)
    volume[~seconds.known] = np.nan
    basis = np.where(seconds.known, (seconds.flags & Flag.COUNTER_RESET) > 0, 2)
    counts = _sums(_PACKED[updates.kind[own]], starts, ends)
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
            "volume": _nullable(volume),
            "volume_basis": _BASES.gather(basis),
            "counter_start": _nullable(booking.before[first]),
            "counter_end": _nullable(booking.after[last]),
            "price_updates": _count(counts, Kind.PRICE),
            "volume_updates": _count(counts, Kind.VOLUME),
            "time_updates": _count(counts, Kind.TIME),
            "quote_updates": seconds.quotes.astype(np.int32),
            "late_updates": _late(trades.flags, starts),
            "bid": _nullable(seconds.bid),
            "ask": _nullable(seconds.ask),
            "spread": _nullable(seconds.spread),
            "observed_seconds": seconds.observed.astype(np.int32),
            "flags": seconds.flags.astype(np.int32),
        }
    )


# Three counts in one number, so that one sum adds them all; the liveliest symbol has half a
# million updates a day.
_COUNT = (1 << 20) - 1
_SHIFT = {Kind.PRICE: 0, Kind.VOLUME: 20, Kind.TIME: 40}
_PACKED = np.zeros(len(Kind) + 1, dtype=np.int64)  # of the kind's number
for _kind, _shift in _SHIFT.items():
    _PACKED[NUMBERS[_kind]] = 1 << _shift
_OBSERVING = np.zeros(len(Kind) + 1, dtype=np.bool_)
_OBSERVING[[NUMBERS[_kind] for _kind in OBSERVING]] = True


def _count(packed: Ints, kind: Kind) -> Counts:
    return ((packed >> _SHIFT[kind]) & _COUNT).astype(np.int32)


def _late(flags: Ints, starts: Ints) -> Counts:
    late = (flags & Flag.LATE) > 0
    if not late.any():
        return np.zeros(starts.size, dtype=np.int32)
    counts: Counts = np.add.reduceat(late, starts, dtype=np.int32)
    return counts


_BASES = pl.Series([Basis.COUNTER_DELTA.value, Basis.COUNTER_RESET.value, Basis.UNKNOWN.value])


def _sums(values: Ints, starts: Ints, ends: Ints) -> Ints:
    """Return the sum of each run: whole numbers, so a difference of running totals is exact."""
    total: Ints = np.cumsum(values)
    return total[ends] - total[starts] + values[starts]


def _any(values: Bools, starts: Ints) -> Bools:
    """Return whether a value of each run is true."""
    if values.all():
        return np.ones(starts.size, dtype=np.bool_)
    found: Bools = np.logical_or.reduceat(values, starts)
    return found


def _joined(flags: Ints, starts: Ints) -> Ints:
    """Return the flags of each run."""
    if not flags.any():
        return np.zeros(starts.size, dtype=np.int64)
    joined: Ints = np.bitwise_or.reduceat(flags, starts)
    return joined


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
