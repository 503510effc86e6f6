"""Statements about stored bars, and the rows that break them.

What a row must be by itself is stated in ``market.quality``; here stand statements that compare a
table with what it was built from. A check, the CLI and a test all call these.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market import quality
from lakehouse_pipeline.market.bars import Source, build_bars, with_coverage
from lakehouse_pipeline.market.counters import as_kinds
from lakehouse_pipeline.market.coverage import paused
from lakehouse_pipeline.market.lines import select_line
from lakehouse_pipeline.market.quotes import canonical, observes_price
from lakehouse_pipeline.market.rollup import roll_up
from lakehouse_pipeline.market.windows import DAY, MINUTE, SECOND, TimeWindow, floor

from .bars import BARS_1M, BARS_1S, current_watermark
from .gaps import GAPS
from .inputs import COLUMNS, LATE_ARRIVAL, LOOK_BACK, read_coverage
from .kinds import QUOTES, judge


@dataclass(frozen=True, slots=True)
class Proof:
    """What was looked at, and the rows that break the statement: none, if it holds."""

    examined: int
    offenders: pl.DataFrame


def ohlc_is_consistent(lake: Lakehouse, exchange: str, window: TimeWindow) -> Proof:
    """Every one-second bar of *window* has low ≤ open, close ≤ high and sane counts."""
    bars = lake.scan(BARS_1S, exchange=exchange, window=window).collect()
    return Proof(bars.height, quality.ohlc_violations(bars))


def bars_match_quotes(lake: Lakehouse, exchange: str, window: TimeWindow) -> Proof:
    """Every closed minute of *window* has the price observations' count, high, low and close.

    They are counted here from the quotes again, in another way than the bars were built. A minute
    with official prices has the count of its observations alone.
    """
    closed = built_part(lake, exchange, window)
    if closed is None:
        return Proof(0, pl.DataFrame())
    wide = TimeWindow(closed.start - LOOK_BACK, closed.end + LATE_ARRIVAL)
    quotes = lake.scan(QUOTES, exchange=exchange, window=wide).select(COLUMNS).collect()
    expected = (
        canonical(select_line(quotes, read_coverage(lake, exchange, wide)))
        .filter(
            observes_price(),
            pl.col("event_time").is_between(closed.start, closed.end, closed="left"),
        )
        .group_by("symbol", pl.col("event_time").dt.truncate("1m").alias("open_time"))
        .agg(
            updates=pl.len().cast(pl.Int64),
            high=pl.col("last_price").max(),
            low=pl.col("last_price").min(),
            close=pl.col("last_price").last(),
        )
    )
    bars = lake.scan(BARS_1M, exchange=exchange, window=closed).collect()
    stored = bars.filter(pl.col("source") != Source.OFFICIAL).select(
        "symbol",
        "open_time",
        "source",
        pl.sum_horizontal("price_updates", "volume_updates", "time_updates")
        .cast(pl.Int64)
        .alias("updates"),
        *("high", "low", "close"),
    )
    both = expected.join(
        stored, on=["symbol", "open_time"], how="full", suffix="_stored", coalesce=True
    )
    differ = {
        name: pl.col(name).ne_missing(pl.col(f"{name}_stored"))
        for name in ("updates", "high", "low", "close")
    }
    is_ours = pl.col("source").ne_missing(Source.MIXED.value)
    differs = differ.pop("updates") | (is_ours & pl.any_horizontal(differ.values()))
    return Proof(both.height, both.filter(differs).sort("symbol", "open_time"))


def rows_are_in_their_place(lake: Lakehouse, exchange: str, window: TimeWindow) -> Proof:
    """Every bar of *window* is on its grid, unique, closed and no later than what was received."""
    watermark = current_watermark(lake, exchange)
    if watermark is None:
        return Proof(0, pl.DataFrame())
    examined, found = 0, []
    for table, step in ((BARS_1S, SECOND), (BARS_1M, MINUTE)):
        bars = lake.scan(table, exchange=exchange, window=window).sort("symbol", "open_time")
        rows = bars.collect()
        examined += rows.height
        found += [
            quality.order_violations(rows),
            quality.window_violations(rows, window, step, watermark),
        ]
    shown = [broken.select("source", *quality.KEY, quality.WHY) for broken in found]
    return Proof(examined, pl.concat(shown))


def minutes_equal_direct_ones(lake: Lakehouse, exchange: str, window: TimeWindow) -> Proof:
    """Minutes rolled up from the stored seconds of *window* are those built from its quotes."""
    closed = built_part(lake, exchange, window)
    if closed is None:
        return Proof(0, pl.DataFrame())
    wide = TimeWindow(floor(closed.start, DAY) - LOOK_BACK, closed.end + LATE_ARRIVAL)
    quotes = lake.scan(QUOTES, exchange=exchange, window=wide).select(COLUMNS).collect()
    coverage = read_coverage(lake, exchange, wide)
    day = closed.start.date()
    kinds = as_kinds(judge(lake, exchange, day, quotes=quotes))
    direct = build_bars(quotes, coverage, closed, closed.end, step=MINUTE, kinds=kinds)
    seconds = lake.scan(BARS_1S, exchange=exchange, window=closed).collect()
    rolled = with_coverage(roll_up(seconds, MINUTE), coverage, MINUTE)
    differ = quality.disagreements(_comparable(rolled), _comparable(direct))
    return Proof(direct.height, differ.select(*quality.KEY, quality.WHY))


def _comparable(bars: pl.DataFrame) -> pl.DataFrame:
    """Return *bars* with their spread, a mean of means, to nine digits."""
    return bars.with_columns(pl.col("spread").round_sig_figs(9))


def volume_is_conserved(lake: Lakehouse, exchange: str, window: TimeWindow) -> Proof:
    """Bars and gaps of each day of *window* add up to what its counters did.

    What is left is the residual of states restored while a symbol was seen.
    """
    closed = built_part(lake, exchange, window)
    if closed is None:
        return Proof(0, pl.DataFrame())
    bars = lake.scan(BARS_1S, exchange=exchange, window=closed).collect()
    gaps = lake.scan(GAPS, exchange=exchange, window=closed).collect()
    over = gaps.filter(pl.col("end") <= closed.end)
    pauses = paused(read_coverage(lake, exchange, closed))
    return Proof(bars.height, quality.unconserved_volume(bars, over, pauses))


def built_part(lake: Lakehouse, exchange: str, window: TimeWindow) -> TimeWindow | None:
    """Return the part of *window* whose minutes are built from all quotes there are.

    In the running day that ends where the last tick ended, or where quotes have come since.
    """
    watermark = current_watermark(lake, exchange)
    if watermark is None:
        return None
    end = min(window.end, floor(watermark, MINUTE))
    built_to = lake.progress(BARS_1M, f"built_to.{exchange}")
    built_from = lake.progress(BARS_1S, f"built_from.{exchange}")
    if end < window.end and built_to is not None and built_from is not None:
        newer = [
            file.times[0]
            for file in lake.touched_since(QUOTES, built_from, exchange)
            if file.times is not None
        ]
        last_tick = datetime.fromtimestamp(built_to, tz=UTC)
        end = floor(min(end, last_tick, *newer), MINUTE)
    return TimeWindow(window.start, end) if window.start < end else None
