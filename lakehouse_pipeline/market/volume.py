"""The feed's cumulative volume: what each update added, exactly, and to whom it belongs.

Add here what concerns the counter. Its high-water mark is ``levels``'s, exact arithmetic
``decimals``'s; summing into bars belongs to ``bars``, the outage a delta fell into to ``gaps``.

A *counter day* is the UTC date of ``last_time``, of a restored state that of its daily open if
that is later: a counter may return to zero without a trade. Within a day the counter of a trading
session only rises. Its high-water mark in receive order is the *level*; an update's delta is what
it raised the level by, in integer lots of the counter's own last decimal, so that 4837.89128 -
4837.88792 is 0.00336 and sums are exact. A delta belongs

* to the bar of the update's second, if the symbol was seen all along since the level before;
* to the gap, if coverage had a hole in between;
* to nobody (the *residual*), if it came with a restored state or between two sessions' counters.

The first observation of a day counts from zero if the symbol was seen since midnight, or since
before the day's first trade. The very first one ever adds nothing: what came before it is unknown,
not zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from lakehouse_pipeline.market.arrays import (
    DAY_US,
    Bools,
    Floats,
    Ints,
    changes,
    codes,
    floats,
    microsecond,
    microseconds,
)
from lakehouse_pipeline.market.decimals import decimals_of, is_exact, to_lots
from lakehouse_pipeline.market.levels import high_water
from lakehouse_pipeline.market.quotes import NUMBERS, Kind, counter_time, numbered, showing_counter
from lakehouse_pipeline.market.windows import TimeWindow

T = TypeVar("T", bound=np.generic)

LARGEST = 1e18  # beyond this a number is a sentinel, not a volume


class Basis(StrEnum):
    """Where an interval's volume came from."""

    COUNTER_DELTA = "counter_delta"
    COUNTER_RESET = "counter_reset"  # the same, over the counter's return to zero
    ROLLED_COMP = "rolled_comp"  # a rolling counter's delta plus the official outflow
    OFFICIAL = "official"  # the vendor's own bar
    MIXED = "mixed"  # of a bar longer than a minute: several of these, as official and counted
    UNKNOWN = "unknown"


class CounterKind(StrEnum):
    """How a symbol's counter behaves."""

    SESSION = "session"  # rises all day, starts from zero at 00:00 UTC
    ROLLING = "rolling"  # the last 24 h: falls whenever old trades leave
    ROLLING_MINUTE = "rolling_minute"  # the same, but old trades leave on the minute
    UNKNOWN = "unknown"  # too little was seen, or it fits none


# Kinds whose differences are no volumes. Who is of the last kind here did not fit any.
GAUGES = frozenset({CounterKind.ROLLING, CounterKind.ROLLING_MINUTE, CounterKind.UNKNOWN})
ALL_SESSION: Mapping[str, CounterKind] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Updates:
    """All rows but quotes as arrays, one line per symbol; ``at`` are their positions in *rows*."""

    rows: pl.DataFrame
    symbols: Ints  # of every row
    kinds: npt.NDArray[np.int8]  # of every row
    at: Ints
    symbol: Ints
    kind: npt.NDArray[np.int8]
    received: Ints
    day: Ints  # the counter's
    value: Floats  # of the counter where the row shows it, else NaN

    @classmethod
    def among(cls, rows: pl.DataFrame) -> Updates:
        """Return the updates among *rows*, which are by symbol."""
        symbols, kinds = codes(rows["symbol"]), numbered(rows["kind"])
        at = np.flatnonzero(kinds != NUMBERS[Kind.QUOTE])
        return cls(
            rows=rows,
            symbols=symbols,
            kinds=kinds,
            at=at,
            symbol=symbols[at],
            kind=kinds[at],
            received=microseconds(rows["received_at"])[at],
            day=_counter_days(rows, kinds)[at],
            value=_observed_values(rows, kinds[at], at),
        )

    def take(self, order: Ints) -> Updates:
        """Return the updates in another *order*."""
        arrays = ("at", "symbol", "kind", "received", "day", "value")
        return replace(self, **{name: getattr(self, name)[order] for name in arrays})


@dataclass(frozen=True, slots=True)
class Booking:
    """What each of the rows given did to its counter; arrays in the rows' own order.

    ``before`` and ``after`` are levels, NaN while unknown. ``booked`` and ``missed`` are lots
    for the bar and for the gap; a lot of the row is ``10 ** -decimals``.
    """

    before: Floats
    after: Floats
    known: Bools  # what the row added to its interval is known
    booked: Ints
    missed: Ints
    decimals: Ints
    reset: Bools
    fell: Bools  # the update was below the level, or above what later ones confirm
    closes_gap: Bools  # the first observation after a hole in coverage
    spans_gap: Bools  # the same on an ordinary update: part of its delta may be its own

    def take(self, positions: Ints) -> Booking:
        """Return the booking of the rows at *positions*."""
        return Booking(**{f.name: getattr(self, f.name)[positions] for f in fields(self)})


def book(updates: Updates, runs: Mapping[str, Sequence[TimeWindow]], *, since: datetime) -> Booking:
    """Return what each update did to its symbol's counter.

    *updates*: in canonical order. *runs*: when each symbol was seen, in received time. *since*:
    the updates are complete from here on, so a day that starts later starts at zero.
    """
    order = _receive_order(updates)
    if order is None:
        return _book(updates, runs, since)
    return _book(updates.take(order), runs, since).take(np.argsort(order))


def follow(updates: Updates, runs: Mapping[str, Sequence[TimeWindow]]) -> Booking:
    """Return the levels of counters that are no sums, such as the volume of the last 24 hours.

    Nothing is booked: what came in and what fell out cannot be told apart here. A level is known
    within a coverage run only, so that no difference spans a hole.
    """
    updates = replace(updates, day=np.zeros_like(updates.day))
    order = _receive_order(updates)
    if order is None:
        return _follow(updates, runs)
    return _follow(updates.take(order), runs).take(np.argsort(order))


def _book(updates: Updates, runs: Mapping[str, Sequence[TimeWindow]], since: datetime) -> Booking:
    """Return the booking of *updates* given by symbol, counter day and order of receipt."""
    symbols, days, received = updates.symbol, updates.day, updates.received
    count, value = updates.at.size, updates.value
    restored = updates.kind == NUMBERS[Kind.RESTORE]
    run, run_start = _runs_of(updates, runs)
    new_group = changes(symbols, days)
    group = np.cumsum(new_group) - 1
    complete = days * DAY_US >= microsecond(since)
    anchored = complete & (run_start <= days * DAY_US)
    anchored |= _seen_before_the_day(symbols, days, run, received)
    value = _without_lost_resets(value, group, restored, days, received)
    seen = np.flatnonzero(~np.isnan(value))
    level, revoked = high_water(value[seen], group[seen], anchored[seen])
    kept = seen
    if revoked.any():
        kept, level = seen[~revoked], level[~revoked]

    first = changes(group[kept])
    base = np.roll(level, 1)
    base[first] = np.where(complete & (anchored | (run > 0)), 0.0, np.nan)[kept[first]]
    known = ~np.isnan(base)
    continuous = np.where(first, anchored[kept], np.roll(run[kept], 1) == run[kept])

    decimals = _common_decimals(level, first)
    lots = to_lots(level, decimals) - to_lots(np.where(known, base, level), decimals)
    to_bar = continuous & ~restored[kept]
    to_gap = ~continuous & known

    before, after = _states(kept, level, new_group, np.where(anchored, 0.0, np.nan))
    fell = np.zeros(count, dtype=np.bool_)
    fell[seen[revoked]] = True
    fell[kept] = value[kept] < level
    return Booking(
        before=before,
        after=after,
        known=~np.isnan(before),
        booked=_placed(np.where(to_bar, lots, 0), kept, count),
        missed=_placed(np.where(to_gap, lots, 0), kept, count),
        decimals=_spread(decimals, kept, count),
        reset=_placed(first & to_bar, kept, count),
        fell=fell,
        closes_gap=_placed(to_gap, kept, count),
        spans_gap=_placed(to_gap & ~restored[kept] & (lots > 0), kept, count),
    )


def _follow(updates: Updates, runs: Mapping[str, Sequence[TimeWindow]]) -> Booking:
    """Return the levels of *updates* given by symbol and order of receipt."""
    count, value = updates.at.size, updates.value
    run, _ = _runs_of(updates, runs)
    seen = np.flatnonzero(~np.isnan(value))
    unknown = np.full(count, np.nan)
    before, after = _states(seen, value[seen], changes(updates.symbol, run), unknown)
    none, never = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.bool_)
    return Booking(
        before=before,
        after=after,
        known=never,
        booked=none,
        missed=none,
        decimals=none,
        reset=never,
        fell=never,
        closes_gap=never,
        spans_gap=never,
    )


def _common_decimals(level: Floats, first: Bools) -> Ints:
    """Return the decimals in which each level and the one before it are told exactly.

    A level of its own day alone decides, never a later one: a booking stands once it is made.
    Beyond a power of ten a level has one decimal less, but a float still holds that of the last.
    """
    decimals = decimals_of(level)
    fewer = np.flatnonzero(~first[1:] & (decimals[1:] < decimals[:-1])) + 1
    before = decimals[fewer - 1]
    decimals[fewer] = np.where(is_exact(level[fewer], before), before, decimals[fewer])
    return decimals


def _observed_values(rows: pl.DataFrame, kinds: npt.NDArray[np.int8], at: Ints) -> Floats:
    """Return the counter of the updates *at* positions where they show it, else NaN."""
    values: Floats = floats(rows["cumulative_volume"])[at]
    shown = showing_counter(rows["changed"].gather(at), kinds)
    values[~(shown & (values >= 0) & (values <= LARGEST))] = np.nan
    return values


def _counter_days(rows: pl.DataFrame, kinds: npt.NDArray[np.int8]) -> Ints:
    """Return the epoch day of every row's counter; see ``quotes.counter_time``."""
    days = microseconds(rows["last_time"].fill_null(rows["received_at"])) // DAY_US
    restored = np.flatnonzero(kinds == NUMBERS[Kind.RESTORE])
    if restored.size:
        times = rows[restored].select(counter_time()).to_series()
        days[restored] = microseconds(times) // DAY_US
    return days


def _without_lost_resets(
    value: Floats, group: Ints, restored: Bools, days: Ints, received: Ints
) -> Floats:
    """Return *value* without restored ones that fell and whose day nothing tells.

    A state of a later date than its last trade, below what that trade's day had come to, is one
    after a reset. It must neither lower nor take back that day.
    """
    doubtful = np.flatnonzero(restored & (received // DAY_US > days) & ~np.isnan(value))
    if not doubtful.size:
        return value
    value = value.copy()
    for position in doubtful.tolist():
        before = value[np.searchsorted(group, group[position]) : position]
        if (before > value[position]).any():
            value[position] = np.nan
    return value


def _receive_order(updates: Updates) -> Ints | None:
    """Return the positions of *updates* by symbol, day and order of receipt.

    None if they are in that order, as rows without restored states or late ones are.
    """
    symbols, days, received = updates.symbol, updates.day, updates.received
    same_symbol = symbols[1:] == symbols[:-1]
    later_day, later = np.diff(days), np.diff(received)
    fine = (later_day > 0) | ((later_day == 0) & (later > 0))
    wrong = same_symbol & ~fine
    if not wrong.any():
        return None
    # Updates of one message were received together: they are in the order of the sequence.
    sequence = updates.rows["sequence"].to_numpy()[updates.at]
    writers = updates.rows["writer_id"].rank("dense").to_numpy()[updates.at]
    together = (later_day == 0) & (later == 0) & (np.diff(writers.astype(np.int64)) == 0)
    wrong &= ~(together & (np.diff(sequence) > 0))
    if not wrong.any():
        return None
    order = np.arange(symbols.size, dtype=np.int64)
    for symbol in np.unique(symbols[1:][wrong]):
        a, b = np.searchsorted(symbols, [symbol, symbol + 1])
        keys = (sequence[a:b], writers[a:b], received[a:b], days[a:b])
        order[a:b] = a + np.lexsort(keys)
    return order


def _runs_of(updates: Updates, runs: Mapping[str, Sequence[TimeWindow]]) -> tuple[Ints, Ints]:
    """Return for each row the number of its coverage run and when that began.

    A row seen before any run is in run -1, which began when it was received.
    """
    symbols, received, names = updates.symbol, updates.received, updates.rows["symbol"]
    run = np.full(symbols.size, -1, dtype=np.int64)
    begun = received.copy()
    edges = np.concatenate((np.flatnonzero(changes(symbols)), [symbols.size]))
    for a, b in pairwise(edges.tolist()):
        windows = runs.get(names[updates.at[a].item()], ())
        if not windows:
            continue
        starts = np.array([microsecond(w.start) for w in windows])
        run[a:b] = np.searchsorted(starts, received[a:b], side="right") - 1
        begun[a:b] = np.where(run[a:b] >= 0, starts[run[a:b]], received[a:b])
    return run, begun


def _seen_before_the_day(symbols: Ints, days: Ints, run: Ints, received: Ints) -> Bools:
    """Return whether the row's own coverage run has already shown an earlier day's last trade.

    Then all that the day's counter holds was traded since, even if the run began after midnight.
    """
    begins = np.flatnonzero(changes(symbols, days, run))
    if begins.size < 2:
        return np.zeros(symbols.size, dtype=np.bool_)
    same_symbol = symbols[begins[1:]] == symbols[begins[:-1]]
    new_day = days[begins[1:]] != days[begins[:-1]]
    carried = same_symbol & new_day & (run[begins[1:]] == run[begins[:-1]])
    earlier = received[begins[:-1]] < received[begins[1:]]
    lengths = np.diff(np.append(begins, symbols.size))
    return np.repeat(np.concatenate(([False], carried & earlier)), lengths)


def _states(kept: Ints, level: Floats, new_group: Bools, ground: Floats) -> tuple[Floats, Floats]:
    """Return the level before and after each row; *ground* where a group has none yet."""
    count = new_group.size
    if not count:
        return ground, ground
    shown = np.zeros(count, dtype=np.int64)
    shown[kept] = 1
    shown = np.cumsum(shown)  # observations so far
    begins = np.flatnonzero(new_group)
    shown_before = np.append(0, shown[begins[1:] - 1])  # the group
    known = shown > np.repeat(shown_before, np.diff(begins, append=count))
    after = np.where(known, np.append(np.nan, level)[shown], ground)
    before = np.roll(after, 1)
    before[begins] = ground[begins]
    return before, after


def _spread(values: npt.NDArray[T], at: Ints, count: int) -> npt.NDArray[T]:
    """Return *count* values: each of those given from its position to the next one's."""
    if not at.size:
        return np.zeros(count, dtype=values.dtype)
    begins = at.copy()
    begins[0] = 0
    return np.repeat(values, np.diff(begins, append=count))


def _placed(values: npt.NDArray[T], at: Ints, count: int) -> npt.NDArray[T]:
    """Return *count* zeros with *values* put at their positions."""
    spread = np.zeros(count, dtype=values.dtype)
    spread[at] = values
    return spread
