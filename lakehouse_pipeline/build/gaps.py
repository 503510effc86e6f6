"""``market.gaps``, the ledger of what was not seen, from quotes and coverage.

Long silences stand beside the gaps, with a cause that says that nothing was missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import polars as pl

from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.slices import Slice
from lakehouse_pipeline.market.counters import as_kinds
from lakehouse_pipeline.market.gaps import BLIND, find_gaps, with_pauses
from lakehouse_pipeline.market.repair import still_unseen
from lakehouse_pipeline.market.silences import find_silences
from lakehouse_pipeline.market.windows import DAY, MINUTE, TimeWindow, floor

from .freshness import HISTORY, note
from .inputs import COVERAGE, FETCHED, Inputs
from .result import BuildResult, write_slice

GAPS = "market.gaps"
# No feed gives single minutes from further back, so no later answer speaks of a gap.
ANSWERABLE = 31 * DAY


def build_gaps(
    lake: Lakehouse,
    exchange: str,
    day: date,
    *,
    watermark: datetime,
    symbols: Sequence[str] | None = None,
    inputs: Inputs | None = None,
) -> BuildResult:
    """Rebuild the ledger of *day* as far as *watermark* lets it be judged.

    All coverage of the exchange is read, not the day's alone: whether a symbol was expected at all
    is known from its first and last subscription, whenever they were. Quotes are read an hour
    beyond the day on each side, for the counters around a gap that touches midnight.
    """
    names = tuple(symbols) if symbols is not None else None
    window = TimeWindow.of_day(day)

    def compute() -> pl.DataFrame:
        read = inputs or Inputs(lake, exchange, day, symbols=names)
        quotes, coverage, kinds = read.quotes(), read.coverage(), as_kinds(read.verdicts())
        ledger = pl.concat(
            [
                find_gaps(quotes, coverage, window, watermark, kinds=kinds),
                find_silences(quotes, coverage, window, watermark),
            ]
        ).sort("symbol", "start", "cause")
        return ledger if names is None else ledger.filter(pl.col("symbol").is_in(names))

    progress = note(lake, GAPS, exchange, window, watermark=watermark, symbols=symbols)
    part = Slice(exchange, window, names)
    ledger, result = write_slice(lake, GAPS, part, compute, progress=progress)
    blind = ledger.filter(pl.col("cause").is_in(BLIND))
    facts = {
        "gaps": blind.height,
        "seconds_missed": float((blind["end"] - blind["start"]).dt.total_seconds().sum()),
        "silences": ledger.height - blind.height,
    }
    return BuildResult(result.table, result.slice, result.rows, result.commit, facts)


def read_gaps(
    lake: Lakehouse,
    *,
    exchange: str | None = None,
    symbols: Sequence[str] | None = None,
    window: TimeWindow | None = None,
) -> pl.DataFrame:
    """Return the ledger's rows that overlap *window*, whole, by symbol and time."""
    # A gap has a row for each day it touches, filed under where it begins in it.
    days = window and TimeWindow(floor(window.start, DAY), window.end)
    rows = lake.scan(GAPS, exchange=exchange, symbols=symbols, window=days)
    if window is not None:
        rows = rows.filter(pl.col("end") > window.start)
    return rows.sort("symbol", "start").collect()


def read_unseen(
    lake: Lakehouse,
    *,
    exchange: str | None = None,
    symbols: Sequence[str] | None = None,
    window: TimeWindow | None = None,
) -> pl.DataFrame:
    """Return what is still not known of *window*, by symbol and time.

    The gaps of ``read_gaps`` without the minutes in which history says that nothing was traded, and
    the pauses between subscriptions. Minutes that history has bars of are still there: what was
    filled shows in the bars themselves.
    """
    ledger = read_gaps(lake, exchange=exchange, symbols=symbols, window=window)
    coverage = lake.scan(COVERAGE, exchange=exchange, symbols=symbols, window=window)
    return with_pauses(_unanswered(lake, ledger, exchange, symbols), coverage.collect())


def _unanswered(
    lake: Lakehouse, ledger: pl.DataFrame, exchange: str | None, symbols: Sequence[str] | None
) -> pl.DataFrame:
    """Return *ledger* without the minutes that history has answered with silence."""
    blind = ledger.filter(pl.col("cause").is_in(BLIND))
    if blind.is_empty():
        return ledger
    first, last = blind.select(pl.col("start").min(), pl.col("end").max()).row(0)
    span, answered = TimeWindow(floor(first, MINUTE), last), TimeWindow(first, last + ANSWERABLE)
    history = lake.scan(
        HISTORY, exchange=exchange, symbols=symbols, window=span, columns=["symbol", "open_time"]
    )
    fetches = lake.scan(FETCHED, exchange=exchange, symbols=symbols, window=answered)
    return still_unseen(ledger, history.collect(), fetches.collect())
