"""The seconds that follow on stored ones, without reading the day again.

What came before them is looked for a few minutes back, then a quarter of an hour; a symbol of
which that does not tell all (``market.lookback``) is read as a build of the whole day reads it.
The rows are the same each way, so only a tick's cost depends on it, not its result.
"""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.slices import Selection
from lakehouse_pipeline.market.bars import build_bars_1s
from lakehouse_pipeline.market.lookback import unsettled
from lakehouse_pipeline.market.windows import DAY, MINUTE, TimeWindow, floor

from .kinds import QUOTES, Kinds

BARS_1S = "market.bars_1s"
REACHES = (2 * MINUTE, 15 * MINUTE)


def follow_on(
    lake: Lakehouse,
    exchange: str,
    part: TimeWindow,
    wide: TimeWindow,
    coverage: pl.DataFrame,
    watermark: datetime,
    kinds: Kinds,
) -> pl.DataFrame:
    """Return the one-second bars of *part*, the same as from all quotes of *wide*.

    *part* lies within a day and *wide* is what a build of that day reads; *coverage* is that of
    *wide*.
    """
    built: list[pl.DataFrame] = []
    left: list[str] | None = None  # all
    midnight = floor(part.start, DAY)
    starts = [part.start - reach for reach in REACHES if part.start - reach >= midnight]
    if starts and not _is_current(lake, exchange, TimeWindow(midnight, part.start)):
        starts = []
    for since in starts:
        quotes = _read_since(lake, exchange, wide, since, left)
        before = TimeWindow(since, part.start)
        bars = lake.scan(BARS_1S, exchange=exchange, window=before, symbols=left).collect()
        left = unsettled(quotes, bars, coverage, part, since, kinds=kinds)
        settled = quotes.filter(~pl.col("symbol").is_in(left))
        built.append(build_bars_1s(settled, coverage, part, watermark, kinds=kinds))
        if not left:
            break
    else:
        quotes = lake.scan(QUOTES, exchange=exchange, window=wide, symbols=left).collect()
        built.append(build_bars_1s(quotes, coverage, part, watermark, kinds=kinds))
    return pl.concat(built).sort("symbol", "open_time")


def _read_since(
    lake: Lakehouse, exchange: str, wide: TimeWindow, since: datetime, symbols: list[str] | None
) -> pl.DataFrame:
    """Return the quotes of *wide* that happened or were received at *since* or later."""
    happened = TimeWindow(since, wide.end)
    late = TimeWindow(wide.start, since)
    frames = [
        lake.scan(QUOTES, exchange=exchange, window=happened, symbols=symbols),
        lake.scan(QUOTES, exchange=exchange, window=late, symbols=symbols, received_since=since),
    ]
    return pl.concat(pl.collect_all(frames))


def _is_current(lake: Lakehouse, exchange: str, day: TimeWindow) -> bool:
    """Tell whether the stored seconds of *day*, so far, are built from all quotes of then."""
    built_to = lake.progress(BARS_1S, f"built_to.{exchange}")
    built_from = lake.progress(BARS_1S, f"built_from.{exchange}")
    if built_to is None or built_from is None:
        return False
    if datetime.fromtimestamp(built_to, tz=UTC) < day.end:
        return False
    newer = lake.touched_since(QUOTES, built_from, exchange)
    return not any(file.may_hold(Selection(exchange, day)) for file in newer)
