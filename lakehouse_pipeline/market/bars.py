"""Quotes to bars, and dense views on request.

Add here what makes a bar. Longer bars from shorter ones belong to ``rollup``; the counter's
arithmetic to ``volume``; which session counts, to ``lines``; merging official bars, to ``merge``.

Input is nearly always in canonical order already, so intervals are runs of rows: their edges are
found by comparing neighbors and reduced with numpy, without hashing a key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from itertools import pairwise

import numpy as np
import polars as pl

from lakehouse_pipeline.market.arrays import (
    SECOND_US,
    Ints,
    microsecond,
    microseconds,
    text_changes,
)
from lakehouse_pipeline.market.coverage import covered_windows, runs
from lakehouse_pipeline.market.dense import dense
from lakehouse_pipeline.market.intervals import Seconds, Trades, reduce
from lakehouse_pipeline.market.lines import select_line
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.schemas import BARS
from lakehouse_pipeline.market.volume import (
    ALL_SESSION,
    GAUGES,
    CounterKind,
    book,
    follow,
)
from lakehouse_pipeline.market.windows import DAY, SECOND, TimeWindow, floor

__all__ = ["Source", "State", "build_bars", "build_bars_1s", "dense", "with_coverage"]

_PORTION = 200_000  # rows


class State(StrEnum):
    """How settled a stored bar is. Forming bars are computed on read and never stored."""

    FORMING = "forming"  # its end is still to come: a bar of a longer step, on read only
    CLOSED = "closed"  # the watermark has passed its end
    FINAL = "final"  # the watermark has passed the end of its UTC day


class Source(StrEnum):
    """What a bar was made of."""

    STREAM = "stream"  # from quotes
    OFFICIAL = "official"  # the vendor's own bar
    MIXED = "mixed"  # a minute seen in part, with official prices; a longer bar of both


def build_bars_1s(
    quotes: pl.DataFrame,
    coverage: pl.DataFrame,
    window: TimeWindow,
    watermark: datetime,
    *,
    since: datetime | None = None,
    kinds: Mapping[str, CounterKind] = ALL_SESSION,
) -> pl.DataFrame:
    """Return the closed one-second bars of *window*; see ``build_bars``."""
    return build_bars(quotes, coverage, window, watermark, step=SECOND, since=since, kinds=kinds)


def build_bars(
    quotes: pl.DataFrame,
    coverage: pl.DataFrame,
    window: TimeWindow,
    watermark: datetime,
    *,
    step: timedelta,
    since: datetime | None = None,
    kinds: Mapping[str, CounterKind] = ALL_SESSION,
) -> pl.DataFrame:
    """Return the bars of *window* that end by *watermark*, in BARS schema, by symbol and time.

    Sparse: a bar exists where a price was observed. *step* divides a day; *window* is made of
    whole steps. What to pass so that a part of a window has the same bars as the whole:

    * *quotes*: everything with ``event_time`` from *since* on, later than the window too as far
      as it is there (a late update is booked against what was received before it).
    * *since*: by default UTC midnight of the window's first day. A later instant saves reading; a
      symbol that has not shown its counter between then and the window has an unknown first volume.
    * a row of the symbol before the window, however old, for ``prev_close`` (else null).
    * *coverage*: from the start of the session alive at *since*, and at least from midnight.
    * *kinds*: of the symbols whose counter is not a session's; see ``counters``.
    """
    assert not DAY % step
    seen = runs(coverage)
    since = since or floor(window.start, DAY)
    cutoff = min(window.end, watermark)

    def build(rows: pl.DataFrame) -> pl.DataFrame:
        if kinds.get(rows["symbol"][0]) in GAUGES:
            trades = Trades.among(rows, partial(follow, runs=seen))
        else:
            trades = Trades.among(rows, partial(book, runs=seen, since=since))
        if not trades.at.size:
            return BARS.to_frame()
        intervals = reduce(trades, Seconds.of(trades), step)
        open_time = pl.col("open_time")
        closed = intervals.filter(open_time >= window.start, open_time + step <= cutoff)
        return _as_bars(closed, watermark)

    parts = portions(select_line(quotes, coverage), kinds)
    if not parts:
        return BARS.to_frame()
    with ThreadPoolExecutor(min(len(parts), pl.thread_pool_size())) as threads:
        bars = pl.concat(threads.map(build, parts))
    return with_coverage(bars, coverage, step)


def portions(
    rows: pl.DataFrame, kinds: Mapping[str, CounterKind] = ALL_SESSION
) -> list[pl.DataFrame]:
    """Return *rows*, which are by symbol, in portions of whole symbols with counters of one sort.

    A portion is one or two hundred thousand rows, so that a core works in its own cache.
    """
    edges: list[int] = []
    sort_before = None
    for begin, end in _symbol_edges(rows):
        sort = kinds.get(rows["symbol"][begin]) in GAUGES
        if sort != sort_before or end - edges[-1] > _PORTION:
            edges.append(begin)
        sort_before = sort
    return [rows.slice(begin, end - begin) for begin, end in pairwise([*edges, rows.height])]


def _symbol_edges(rows: pl.DataFrame) -> Iterable[tuple[int, int]]:
    """Return where each symbol's *rows* begin and end."""
    return pairwise([*text_changes(rows["symbol"]).tolist(), rows.height])


def _as_bars(intervals: pl.DataFrame, watermark: datetime) -> pl.DataFrame:
    """Return closed *intervals* in BARS schema, not yet compared with coverage."""
    state = pl.when(pl.col("open_time") < floor(watermark, DAY)).then(pl.lit(State.FINAL.value))
    return (
        intervals.with_columns(
            covered_seconds=pl.lit(0.0),
            state=state.otherwise(pl.lit(State.CLOSED.value)),
            source=pl.lit(Source.STREAM.value),
        )
        .select(BARS.names())
        .cast(dict(BARS))  # type: ignore[arg-type]  # a schema is a mapping of types
    )


def with_coverage(bars: pl.DataFrame, coverage: pl.DataFrame, step: timedelta) -> pl.DataFrame:
    """Return *bars* of *step* with covered seconds, and the PARTIAL flag, as *coverage* has them.

    *bars* are sorted by symbol and time.
    """
    windows = covered_windows(coverage)
    opens = microseconds(bars["open_time"])
    length = step // step.resolution
    covered = np.zeros(bars.height, dtype=np.int64)
    for begin, end in _symbol_edges(bars):
        seen = windows.get(bars["symbol"][begin], [])
        covered[begin:end] = _covered(opens[begin:end], length, seen)
    partial = (covered < length) * np.int32(Flag.PARTIAL)
    flags = bars["flags"].to_numpy() & ~np.int32(Flag.PARTIAL) | partial
    return bars.with_columns(
        covered_seconds=pl.Series(covered / SECOND_US), flags=pl.Series(flags, dtype=BARS["flags"])
    )


def _covered(opens: Ints, length: int, windows: list[TimeWindow]) -> Ints:
    """Return how many microseconds of each interval lie in *windows*, which are disjoint."""
    covered = np.zeros(opens.size, dtype=np.int64)
    for window in windows:
        start, end = microsecond(window.start), microsecond(window.end)
        a, b = np.searchsorted(opens, [start - length, end], side="left")
        inside = opens[a:b]
        covered[a:b] += np.minimum(inside + length, end) - np.maximum(inside, start)
    return covered
