"""``market.bars_1s`` from quotes and coverage, ``market.bars_1m`` from ``bars_1s`` and history.

A window is built day by day, and each part of a day reads what the whole day would, so a tick, a
backfill and the CLI give the same rows whatever window they were asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

import polars as pl

from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.progress import Noted, Renewal, at_least
from lakehouse_pipeline.lake.slices import Slice
from lakehouse_pipeline.market.bars import build_bars_1s
from lakehouse_pipeline.market.counters import as_kinds, compensate, followed
from lakehouse_pipeline.market.coverage import watermark
from lakehouse_pipeline.market.merge import merge
from lakehouse_pipeline.market.rollup import roll_up
from lakehouse_pipeline.market.windows import DAY, MINUTE, TimeWindow, ceil, floor

from .freshness import note
from .inputs import COVERAGE, Inputs, read_coverage
from .kinds import Kinds, kinds_on
from .result import BuildResult, write_slice

BARS_1S = "market.bars_1s"
BARS_1M = "market.bars_1m"
HISTORY_1M = "market.history_1m"


def current_watermark(lake: Lakehouse, exchange: str) -> datetime | None:
    """Return the instant up to which *exchange* has been received, or None before its first."""
    newest = max(
        (file.times[1] for file in lake.touched_since(COVERAGE, 0, exchange) if file.times),
        default=None,
    )
    if newest is None:
        return None
    # A file may hold several exchanges' bounds; ours may have been silent for long.
    recent = TimeWindow(newest - timedelta(days=1), newest + timedelta(days=1))
    for window in (recent, None):
        marks = lake.scan(COVERAGE, exchange=exchange, window=window).collect()
        if (seen := watermark(marks, exchange)) is not None:
            return seen
    return None


def build_1s(
    lake: Lakehouse,
    exchange: str,
    window: TimeWindow,
    *,
    watermark: datetime,
    symbols: Sequence[str] | None = None,
    kinds: Kinds | None = None,
    inputs: Inputs | None = None,
) -> list[BuildResult]:
    """Rebuild the one-second bars of *window* that *watermark* has closed.

    Args:
        lake: where quotes are read and bars are written.
        exchange: its bars are replaced, nobody else's.
        window: half-open, whole seconds.
        watermark: event time is complete before it; later seconds are left for later.
        symbols: full names; all that were recorded by default.
        kinds: of the counters; judged from the quotes of each day by default.
        inputs: of the day, of a caller who reads them for other tables as well.
    """
    names = tuple(symbols) if symbols is not None else None
    results: list[BuildResult] = []
    for part in closed_parts(window, watermark):
        day = part.start.date()

        def compute(part: TimeWindow = part, day: date = day) -> pl.DataFrame:
            read = inputs or Inputs(lake, exchange, day, symbols=names)
            booked_as = kinds if kinds is not None else as_kinds(read.verdicts())
            coverage = read.coverage(read.wide)
            # Let go before the bars are written, which takes as much again.
            quotes = read.take_quotes()
            return build_bars_1s(quotes, coverage, part, watermark, kinds=booked_as)

        reached = seconds_reached(lake, exchange, part, watermark=watermark) if not symbols else {}
        bars, result = write_slice(
            lake, BARS_1S, Slice(exchange, part, names), compute, progress=reached
        )
        if inputs is not None and result.commit is not None:
            inputs.keep_seconds(part, bars, result.commit)
        results.append(result)
    return results


def seconds_reached(
    lake: Lakehouse, exchange: str, part: TimeWindow, *, watermark: datetime
) -> dict[str, Noted | Renewal]:
    """Return what is noted with the seconds of *part*, of every symbol; before anything is read."""
    return {
        f"closed_to.{exchange}": at_least(int(part.end.timestamp())),
        **note(lake, BARS_1S, exchange, part, watermark=watermark, symbols=None),
    }


def build_1m(
    lake: Lakehouse,
    exchange: str,
    window: TimeWindow,
    *,
    watermark: datetime,
    symbols: Sequence[str] | None = None,
    seconds_end: datetime | None = None,
    inputs: Inputs | None = None,
) -> list[BuildResult]:
    """Rebuild the one-minute bars of *window* that *watermark* has closed.

    From one-second bars, and from official minutes where not all of a minute was seen. Minutes
    after *seconds_end* wait; by default the table knows how far its seconds are built. A caller who
    has just built them knows better than the table, where another day's build may have its word;
    the *inputs* that they were built from may still hold them.
    """
    names = tuple(symbols) if symbols is not None else None
    results: list[BuildResult] = []
    if seconds_end is None:
        seconds_end = watermark if symbols else built_seconds(lake, exchange, watermark)
    seconds_end = min(watermark, seconds_end)
    for part in closed_parts(
        TimeWindow(floor(window.start, MINUTE), ceil(window.end, MINUTE)),
        floor(seconds_end, MINUTE),
    ):

        def compute(part: TimeWindow = part) -> pl.DataFrame:
            read = inputs or Inputs(lake, exchange, part.start.date(), symbols=names)
            seconds = read.seconds(part)
            history = lake.scan(HISTORY_1M, exchange=exchange, window=part, symbols=names)
            coverage = read_coverage(lake, exchange, part)
            minutes = roll_up(seconds, MINUTE)
            if rolling := followed(seconds):
                # The volume of a rolling counter is what it did since the minute before and what
                # left its window meanwhile.
                before = TimeWindow(part.start - MINUTE, part.start)
                earlier = lake.scan(BARS_1S, exchange=exchange, window=before, symbols=rolling)
                minutes = pl.concat([roll_up(earlier.collect(), MINUTE), minutes])
                kinds = kinds_on(lake, exchange, part.start.date(), symbols=rolling)
                left = TimeWindow(part.start - DAY - MINUTE, part.end - DAY)
                leaving = lake.scan(HISTORY_1M, exchange=exchange, window=left, symbols=rolling)
                minutes = compensate(minutes, leaving.collect(), coverage, kinds)
            minutes = minutes.filter(pl.col("open_time") >= part.start)
            return merge(minutes, history.collect(), coverage, watermark)

        progress = note(lake, BARS_1M, exchange, part, watermark=watermark, symbols=symbols)
        _, result = write_slice(
            lake, BARS_1M, Slice(exchange, part, names), compute, progress=progress
        )
        results.append(result)
    return results


def built_seconds(lake: Lakehouse, exchange: str, watermark: datetime) -> datetime:
    """Return how far the one-second bars of *exchange* were ever built.

    The watermark moves on between a build of seconds and one of minutes; a minute whose last
    seconds are not built yet must wait for them.
    """
    closed_to = lake.progress(BARS_1S, f"closed_to.{exchange}")
    return datetime.fromtimestamp(closed_to or 0, tz=watermark.tzinfo)


def built_up_to(lake: Lakehouse, table: str, exchange: str) -> datetime:
    """Return the instant up to which bars of *exchange* in *table* are built, as far as is known.

    Ticks note it of minutes; where none ever ran, a build of minutes went as far as the seconds.
    """
    seconds = lake.progress(BARS_1S, f"closed_to.{exchange}") or 0
    if table == BARS_1S:
        return datetime.fromtimestamp(seconds, tz=UTC)
    ticked = lake.progress(BARS_1M, f"built_to.{exchange}")
    return floor(datetime.fromtimestamp(seconds if ticked is None else ticked, tz=UTC), MINUTE)


def closed_parts(window: TimeWindow, watermark: datetime) -> Iterator[TimeWindow]:
    """Yield what *watermark* has closed of *window*, cut at each UTC midnight."""
    end = min(window.end, floor(watermark, timedelta(seconds=1)))
    if end <= window.start:
        return
    closed = TimeWindow(window.start, end)
    for day in closed.days():
        part = closed.intersect(TimeWindow.of_day(day))
        if part is not None:
            yield part
