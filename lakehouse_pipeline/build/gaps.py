"""``market.gaps``, the ledger of what was not seen, from quotes and coverage."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import polars as pl

from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.slices import Slice
from lakehouse_pipeline.market.gaps import find_gaps
from lakehouse_pipeline.market.windows import TimeWindow

from .bars import COVERAGE, LATE_ARRIVAL, LOOK_BACK, QUOTES
from .result import BuildResult, write_slice

GAPS = "market.gaps"


def build_gaps(
    lake: Lakehouse,
    exchange: str,
    day: date,
    *,
    watermark: datetime,
    symbols: Sequence[str] | None = None,
) -> BuildResult:
    """Rebuild the ledger of *day* as far as *watermark* lets it be judged.

    All coverage of the exchange is read, not the day's alone: whether a symbol was expected at all
    is known from its first and last subscription, whenever they were. Quotes are read an hour
    beyond the day on each side, for the counters around a gap that touches midnight.
    """
    names = tuple(symbols) if symbols is not None else None
    window = TimeWindow.of_day(day)

    def compute() -> pl.DataFrame:
        wide = TimeWindow(window.start - LOOK_BACK, window.end + LATE_ARRIVAL)
        quotes = lake.scan(QUOTES, exchange=exchange, window=wide, symbols=names).collect()
        coverage = lake.scan(COVERAGE, exchange=exchange).collect()
        return find_gaps(quotes, coverage, window, watermark)

    gaps, result = write_slice(lake, GAPS, Slice(exchange, window, names), compute)
    facts = {
        "gaps": gaps.height,
        "seconds_missed": float((gaps["end"] - gaps["start"]).dt.total_seconds().sum() or 0),
    }
    return BuildResult(result.table, result.slice, result.rows, result.commit, facts)
