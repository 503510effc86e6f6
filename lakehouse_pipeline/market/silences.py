"""Times in which we saw, and nothing came: a quiet symbol, a halted venue, a feed that lags.

They stand in the ledger beside the gaps so that nobody takes them for gaps: nothing was missed.
What was not seen belongs to ``gaps``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from lakehouse_pipeline.market.arrays import changes, codes, microseconds
from lakehouse_pipeline.market.causes import Cause
from lakehouse_pipeline.market.coverage import covered_windows
from lakehouse_pipeline.market.gaps import gap_id
from lakehouse_pipeline.market.lines import select_line
from lakehouse_pipeline.market.quotes import NUMBERS, OBSERVING, RECEIVED, numbered
from lakehouse_pipeline.market.schemas import GAPS
from lakehouse_pipeline.market.windows import (
    SECOND,
    TimeWindow,
    intersect,
    subtract,
    union,
)

LONG = timedelta(minutes=5)  # a silence worth a row
LONG_US = LONG // LONG.resolution
SEVERAL = 3  # symbols that must all be silent before it is the venue


@dataclass(frozen=True, slots=True)
class Silence:
    """One stretch of one symbol, with its cause and what shows it."""

    window: TimeWindow
    cause: Cause
    evidence: str


def find_silences(
    quotes: pl.DataFrame, coverage: pl.DataFrame, window: TimeWindow, watermark: datetime
) -> pl.DataFrame:
    """Return the long silences of *window* before *watermark*, in GAPS schema.

    By symbol and time, cut at each UTC midnight; ``gap_id`` is that of the silence's start as far
    as *quotes* and *coverage*, which are those of one exchange, show it. Missed volume is zero:
    the symbol was seen all along.
    """
    if watermark <= window.start:
        return GAPS.to_frame()
    visible = TimeWindow(window.start, min(window.end, watermark))
    seen = covered_windows(coverage)
    rows = select_line(quotes, coverage)
    exchanges = dict(coverage.drop_nulls("symbol").select("symbol", "exchange").iter_rows())
    silences = _silences(rows, seen)
    found = [
        (
            *(gap_id(exchanges[symbol], symbol, silence.window.start), exchanges[symbol], symbol),
            *(part.start, part.end, silence.cause.value, silence.evidence, 0.0, None, None),
        )
        for symbol in sorted(silences)
        for silence in silences[symbol]
        for day in silence.window.days()
        if (whole := silence.window.intersect(TimeWindow.of_day(day)))
        and (part := whole.intersect(visible))
    ]
    return pl.DataFrame(found, schema=GAPS, orient="row").sort("symbol", "start", "end")


def _silences(rows: pl.DataFrame, seen: Mapping[str, list[TimeWindow]]) -> dict[str, list[Silence]]:
    """Return every symbol's silences over all of *rows*."""
    without_trade = _without_trade(rows, seen)
    halts = _halts(without_trade, seen)
    delayed = _delayed(rows, seen)
    result = {}
    for symbol, windows in without_trade.items():
        late = delayed.get(symbol, [])
        halted = intersect(windows, halts)
        quiet = subtract(windows, halted + late)
        result[symbol] = [
            *_told(halted, Cause.VENUE_HALT, f"none of {len(seen)} symbols traded, feed alive"),
            *_told(late, Cause.UPSTREAM_DELAYED, "the feed's update mode said so"),
            *_told(quiet, Cause.QUIET_MARKET, "no trade of the symbol, feed alive"),
        ]
    return result


def _told(windows: Iterable[TimeWindow], cause: Cause, evidence: str) -> list[Silence]:
    return [Silence(window, cause, evidence) for window in windows if window.length >= LONG]


def _without_trade(
    rows: pl.DataFrame, seen: Mapping[str, list[TimeWindow]]
) -> dict[str, list[TimeWindow]]:
    """Return where each symbol was seen for long without a trade, in event time."""
    observing = np.isin(numbered(rows["kind"]), [NUMBERS[kind] for kind in OBSERVING])
    traded = np.flatnonzero(observing & rows["last_price"].is_not_null().to_numpy())
    symbols, happened = codes(rows["symbol"])[traded], microseconds(rows["event_time"])[traded]
    # Trades close together are one busy stretch: only long silences need to be looked at.
    begins = np.flatnonzero(changes(symbols) | (np.diff(happened, prepend=0) >= LONG_US))
    ends = np.append(begins[1:], traded.size)[: begins.size] - 1
    busy: defaultdict[str, list[TimeWindow]] = defaultdict(list)
    for symbol, first, last in zip(
        rows["symbol"].gather(traded[begins]),
        rows["event_time"].gather(traded[begins]),
        rows["event_time"].gather(traded[ends]),
        strict=True,
    ):
        busy[symbol].append(TimeWindow(first, last + SECOND))
    return {
        symbol: [w for w in subtract(windows, busy[symbol]) if w.length >= LONG]
        for symbol, windows in seen.items()
    }


def _halts(
    without_trade: Mapping[str, list[TimeWindow]], seen: Mapping[str, list[TimeWindow]]
) -> list[TimeWindow]:
    """Return where several symbols were seen and none of them traded."""
    if len(seen) < SEVERAL:
        return []
    watched = union(w for windows in seen.values() for w in windows)
    active = [w for s, windows in seen.items() for w in subtract(windows, without_trade[s])]
    return [w for w in subtract(watched, active) if w.length >= LONG]


def _delayed(
    rows: pl.DataFrame, seen: Mapping[str, list[TimeWindow]]
) -> dict[str, list[TimeWindow]]:
    """Return where each symbol's updates said that they were delayed, in received time."""
    delayed = rows["update_mode"].str.starts_with("delayed").fill_null(value=False)
    if not delayed.any():
        return {}
    changes = (
        rows.select(*RECEIVED, delayed=delayed)
        .sort(RECEIVED)
        .filter(
            (pl.col("delayed") != pl.col("delayed").shift()).over("symbol").fill_null(value=True)
        )
        .with_columns(until=pl.col("received_at").shift(-1).over("symbol"))
        .filter("delayed")
    )
    windows: defaultdict[str, list[TimeWindow]] = defaultdict(list)
    for symbol, begin, until in changes.select("symbol", "received_at", "until").iter_rows():
        known = seen.get(symbol, [])
        end = until or max((w.end for w in known), default=begin)
        if begin < end:
            windows[symbol] += intersect([TimeWindow(begin, end)], known)
    return dict(windows)
